"""A real server on a loopback port, and a client that sends whatever bytes it is told to."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from service import codec
from service.app import create_app
from service.health import State
from service.routes import Service
from service.server import Server, configure
from service.settings import Settings

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Live:
    """A server that listens.

    Attributes:
        port: On 127.0.0.1.
        service: Its state.
    """

    port: int
    service: Service

    def connect(self) -> socket.socket:
        """A fresh connection."""
        return connect(self.port)

    def send(self, *parts: bytes) -> Answer:
        """Send bytes on a fresh connection and read the answer."""
        return send(self.port, *parts)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer.

    Attributes:
        status: Its code.
        headers: By lower-case name.
        body: As far as Content-Length says.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document it carries."""
        assert self.headers["content-type"] == "application/problem+json", (self.status, self.headers)
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        return document

    @property
    def slug(self) -> str:
        """Last part of the problem's type."""
        return str(self.problem["type"]).rpartition(":")[2]


def connect(port: int) -> socket.socket:
    """A connection to a port of this machine."""
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def send(port: int, *parts: bytes) -> Answer:
    """Send bytes on a fresh connection and read the answer."""
    with connect(port) as line:
        send_all(line, parts)
        return read_answer(line)


def send_all(line: socket.socket, parts: Iterable[bytes]) -> None:
    """Send parts, and stop without complaint when the server has stopped listening."""
    try:
        for part in parts:
            line.sendall(part)
    except (BrokenPipeError, ConnectionResetError):
        pass


def read_answer(line: socket.socket) -> Answer:
    """Read one answer with a Content-Length; ConnectionError if there is none."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += _exactly(line, 1)
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in rest)}
    return Answer(int(first.split()[1]), headers, _exactly(line, int(headers["content-length"])))


def _exactly(line: socket.socket, count: int) -> bytes:
    """No byte more, so that the next answer on the connection stays unread."""
    data = b""
    while len(data) < count:
        more = line.recv(count - len(data))
        if not more:
            raise ConnectionError("the server closed the connection without a whole answer")
        data += more
    return data


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A POST as bytes."""
    lines = (f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def get(path: str, *headers: str) -> bytes:
    """A GET as bytes."""
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: x", *headers)).encode() + b"\r\n\r\n"


def wait_for(condition: Any, what: str) -> None:
    """Return once a condition holds; fail if it never does."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited too long for {what}"
        time.sleep(0.005)


@contextmanager
def listen(models: codec.ModelSet, **changes: object) -> Iterator[Live]:
    """A ready server in a thread of this process."""
    given = {"device": "cpu", "port": 0, "drain_notice_s": 0, "drain_s": 5, **changes}
    settings = Settings.model_validate(given)
    app = create_app(settings, models)
    service: Service = app.state.service
    server = Server(configure(settings, service, app), service)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: service.health.state is State.READY, "readiness")
        wait_for(lambda: server.started, "the listener")
        yield Live(server.servers[0].sockets[0].getsockname()[1], service)
    finally:
        server.should_exit = True
        thread.join()
