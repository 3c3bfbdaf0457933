"""Which pages of other origins may call the service; Starlette's middleware with problems instead of plain text."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from service.problems import problem
from service.responses import RE_ENCODE_HEADERS, RESULT_HEADERS, STREAM_HEADERS

EXPOSED = (*RESULT_HEADERS, *STREAM_HEADERS, *RE_ENCODE_HEADERS, "Retry-After", "X-Request-Id")
ENTITY_HEADERS = ("content-length", "content-type")


class Cors(CORSMiddleware):
    """CORS for some origins.

    Args:
        app: What is behind.
        origins: Scheme, host and port each; `*` allows all. Keys travel in Authorization, never in cookies.
    """

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "Content-Type", "Traceparent"),
            expose_headers=EXPOSED,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """204 if the page may, a problem if it may not."""
        answer = super().preflight_response(request_headers)
        kept = {name: value for name, value in answer.headers.items() if name not in ENTITY_HEADERS}
        if answer.status_code < 400:
            return Response(status_code=204, headers=kept)
        refused = problem(400, "bad-request", "Bad Request", "this origin, method or header is not allowed here")
        refused.headers.update(kept)
        return refused
