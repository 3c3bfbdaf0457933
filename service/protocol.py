"""Bytes of a connection <-> HTTP: uvicorn's protocol, with problems where it would answer in plain text or not at all.

- Malformed HTTP is answered with a problem.
- Headers have a longest length and a deadline; llhttp has neither. Trailers and the framing of chunks count as headers,
  beyond as many bytes as the body has: nothing a client sends is without a bound.
- A body that goes on after its answer is read for a while and thrown away, so that the connection can be used again.
- A connection that is closed while a body is still arriving lingers: closing at once would make the kernel reset it,
  and the client would never read why.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from starlette.responses import Response
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from service.problems import problem

LINGER_S = 2.0
DISCARD_S = 10.0
"""How long the rest of a body may arrive after its answer; the connection can be used again if it does."""
LINGER_BYTES = 64 * 2**20


class Counts(Protocol):
    """Where refusals are counted; prometheus_client's Counter."""

    def labels(self, *values: str) -> Any:
        """The child for these label values."""


def protocol_class(max_header_bytes: int, header_deadline_s: float, rejected: Counts) -> type[HttpToolsProtocol]:
    """A protocol for uvicorn's `http` option.

    Args:
        max_header_bytes: Longest request line and headers together.
        header_deadline_s: Longest time from a request's first byte, or the connection, to the end of its headers.
        rejected: Refusals by reason.
    """

    class BijouProtocol(HttpToolsProtocol):
        def __init__(
            self,
            config: Config,
            server_state: ServerState,
            app_state: dict[str, Any],
            _loop: asyncio.AbstractEventLoop | None = None,
        ) -> None:
            super().__init__(config, server_state, app_state, _loop)
            self._line: _Lingering | None = None
            self._overhead_bytes = self._body_bytes = 0
            self._begun = self._over = False
            self._header_timer: asyncio.TimerHandle | None = None
            self._discard_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            self._line = _Lingering(transport, self.loop)
            super().connection_made(self._line)  # type: ignore[arg-type]
            self._expect_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._headers_came()
            self._body_came()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            assert self._line is not None
            if self._over or self._line.is_closing():
                self._line.swallow(len(data))
                return
            self._overhead_bytes += len(data)
            super().data_received(data)
            if self._overhead_bytes > max_header_bytes + self._body_bytes and not self._over:
                self._too_large()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._overhead_bytes = self._body_bytes = 0
            self._begun = True
            self._expect_headers()

        def on_headers_complete(self) -> None:
            self._headers_came()
            if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > max_header_bytes:
                self._too_large()
            if not self._over:
                super().on_headers_complete()
                self._body_arrives(True)

        def on_body(self, body: bytes) -> None:
            self._overhead_bytes -= len(body)
            self._body_bytes += len(body)
            if not self._over:
                super().on_body(body)

        def on_message_complete(self) -> None:
            self._body_came()
            if not self._over:
                self._body_arrives(False)
                super().on_message_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self._line is not None and self._line.body_arrives and not self._line.is_closing():
                self._discard_timer = self.loop.call_later(DISCARD_S, self._line.close)

        def send_400_response(self, msg: str) -> None:
            if not self._over:
                self._refuse("malformed_http", problem(400, "bad-request", "Bad Request", "this is not valid HTTP/1.1"))

        def _expect_headers(self) -> None:
            self._headers_came()
            self._header_timer = self.loop.call_later(header_deadline_s, self._too_slow)

        def _headers_came(self) -> None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

        def _body_came(self) -> None:
            if self._discard_timer is not None:
                self._discard_timer.cancel()
                self._discard_timer = None

        def _body_arrives(self, still: bool) -> None:
            assert self._line is not None
            self._line.body_arrives = still

        def _too_large(self) -> None:
            detail = f"send at most {max_header_bytes} bytes of request line and headers"
            self._refuse("headers_too_large", problem(431, "headers-too-large", "The headers are too large", detail))

        def _too_slow(self) -> None:
            if not self._begun:
                self.transport.close()  # opened ahead of need, and never used
                return
            detail = f"send the request line and headers within {header_deadline_s:g} s"
            self._refuse("headers_too_slow", problem(408, "headers-too-slow", "The headers took too long", detail))

        def _refuse(self, reason: str, answer: Response) -> None:
            """Answer past the application, in place of the request that is arriving, and close."""
            self._over = True
            self._headers_came()
            self._unset_keepalive_if_required()
            rejected.labels(reason).inc()
            cycle = self.cycle
            if cycle is not None and not cycle.response_complete:
                if self.pipeline or cycle.response_started or not cycle.more_body:
                    cycle.keep_alive = False  # an earlier request is being answered; its answer is the last
                    return
                cycle.disconnected = True
                cycle.message_event.set()
            answer.headers["Connection"] = "close"
            lines = [*self.server_state.default_headers, *answer.raw_headers]
            head = b"".join(name + b": " + value + b"\r\n" for name, value in lines)
            self.transport.write(STATUS_LINE[answer.status_code] + head + b"\r\n" + bytes(answer.body))
            self._body_arrives(True)
            self.transport.close()

    return BijouProtocol


class _Lingering:
    """A transport whose close lets the rest of a body pass by first; everything else is the transport's own.

    Attributes:
        body_arrives: Whether the peer is still sending.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._left_bytes = LINGER_BYTES
        self._timer: asyncio.TimerHandle | None = None
        self.body_arrives = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        if self._timer is not None:
            return
        if not self.body_arrives or self._transport.is_closing():
            self._transport.close()
            return
        self._timer = self._loop.call_later(LINGER_S, self._transport.close)
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def is_closing(self) -> bool:
        return self._timer is not None or self._transport.is_closing()

    def swallow(self, count: int) -> None:
        self._left_bytes -= count
        if self._left_bytes < 0:
            self._transport.close()
