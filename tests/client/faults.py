"""A proxy that does to answers what networks and overloaded services do."""

from __future__ import annotations

import http.client
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

FAULTS = ("full", "gateway", "drop", "truncate", "corrupt", "foreign")


@dataclass
class Proxy:
    """Forwards to a server; each request takes the next fault, none if none is left.

    Attributes:
        url: Where it listens.
        faults: What happens to the next requests; `""` lets one pass.
        forever: What happens once they are used up.
        requests: How many came.
        retry_after_s: What a full service asks for.
        held_after: Requests after so many wait until `released` is set; 0: none.
        released: Lets held requests go on.
    """

    url: str = ""
    faults: deque[str] = field(default_factory=deque)
    forever: str = ""
    requests: int = 0
    connections: int = 0
    retry_after_s: str = "0"
    held_after: int = 0
    released: threading.Event = field(default_factory=threading.Event)


@contextmanager
def faulty(upstream: str) -> Iterator[Proxy]:
    """Run a proxy before a server."""
    state = Proxy()

    class Handler(_Handler):
        proxy = state
        target = urlsplit(upstream).netloc

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ClassVar[Proxy]
    target: ClassVar[str]

    def setup(self) -> None:
        super().setup()
        self.proxy.connections += 1

    def do_GET(self) -> None:
        self._forward()

    def do_POST(self) -> None:
        self._forward()

    def _forward(self) -> None:
        self.proxy.requests += 1
        if 0 < self.proxy.held_after < self.proxy.requests:
            self.proxy.released.wait(60)
        fault = self.proxy.faults.popleft() if self.proxy.faults else self.proxy.forever
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if fault == "drop":
            self.close_connection = True
        elif fault == "full":
            self._answer(503, {"Retry-After": self.proxy.retry_after_s}, b"")
        elif fault == "gateway":
            self._answer(502, {"Content-Type": "text/html"}, b"<h1>Bad Gateway</h1>")
        elif fault == "foreign":
            self._answer(200, {"Content-Type": "text/html"}, b"<h1>Welcome to this network</h1>")
        else:
            self._pass(body, fault)

    def _pass(self, body: bytes, fault: str) -> None:
        upstream = http.client.HTTPConnection(self.target, timeout=60)
        try:
            upstream.request(self.command, self.path, body or None, dict(self.headers))
            answer = upstream.getresponse()
            data = bytearray(answer.read())
            headers = {name: value for name, value in answer.getheaders() if name.lower() != "connection"}
        except OSError:
            self.close_connection = True
            return
        finally:
            upstream.close()
        if fault == "corrupt":
            data[len(data) // 2] ^= 1
        self._answer(answer.status, headers, bytes(data), sent=len(data) // 2 if fault == "truncate" else None)

    def _answer(self, status: int, headers: dict[str, str], body: bytes, sent: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in ({k.lower(): v for k, v in headers.items()} | {"content-length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:sent])
        if sent is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name is the base class's
        """Say nothing."""
