"""One metric sample, one log line and one request id for every request, whatever answered it.

The id is the trace id of the caller's `traceparent`, or a new one; every log line of the request has it, and the
answer's X-Request-Id.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, Literal

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics
from service.trace import trace_of

QUIET = ("/healthz/", "/metrics")
"""Prefixes that are polled; they are logged at debug level."""
PAGE = "/web/"
"""What is below is one route."""


class Observe:
    """Outermost ASGI middleware.

    Args:
        app: What is behind.
        metrics: Where to count.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics, self._log = app, metrics, structlog.get_logger(__name__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and record how it went."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status, sent_bytes = time.perf_counter(), 500, 0
        trace = trace_of(Headers(scope=scope).get("traceparent"))
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(
            trace_id=trace.trace_id,
            span_id=trace.span_id,
            **({"parent_id": trace.parent_id} if trace.parent_id else {}),
        )

        async def watch(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = trace.trace_id
            elif message["type"] == "http.response.body":
                sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            duration_s = time.perf_counter() - started
            route = route_label(scope)
            self._metrics.requests.labels(route, method_label(scope["method"]), str(status)).inc()
            self._metrics.request_seconds.labels(route).observe(duration_s)
            say = self._log.debug if route.startswith(QUIET) else self._log.info
            say("request", route=route, status=status, duration_s=round(duration_s, 4), sent_bytes=sent_bytes)


def route_label(scope: Scope) -> str:
    """The route's template, never the path a client made up."""
    known: frozenset[str] = scope["app"].state.paths if "app" in scope else frozenset()
    if scope["path"].startswith(PAGE):
        return PAGE
    return scope["path"] if scope["path"] in known else "unmatched"


def method_label(method: str) -> str:
    """The method, or `other` for one a client made up."""
    return method if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} else "other"


def configure_logs(level: str, style: Literal["console", "json"]) -> None:
    """Send structlog's and the standard library's records to stderr in one style."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    final: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if style == "json":
        final.append(structlog.processors.format_exc_info)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*final, renderer]))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
