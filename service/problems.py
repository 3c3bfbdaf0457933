"""Errors -> RFC 9457 problem documents. Every answer that is not a success passes through here.

One table maps a class to its status and title; the most derived class wins. Nothing a client sent is echoed, but for
names of models and numbers already checked. Source: RFC 9457, "Problem Details for HTTP APIs", 2023.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import codec

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:bijou:problem:"
RETRY_AFTER_S = 5
"""For refusals that do not depend on the queue."""


class ServiceError(Exception):
    """What the service itself refuses, before or around the codec; its text says what to do."""


class MalformedRequestError(ServiceError):
    """The body is empty or not the multipart form it says it is."""


class BodyTooLargeError(ServiceError):
    """The body is longer than the limit."""


class EncodedBodyError(ServiceError):
    """The body has a Content-Encoding."""


class NotAcceptableError(ServiceError):
    """No format the client accepts can be written."""


class MissingKeyError(ServiceError):
    """The service asks for a key and the request has none."""


class WrongKeyError(ServiceError):
    """The request's key is not one of the service's."""


class QuotaError(ServiceError):
    """The key's requests of this minute are used up.

    Attributes:
        retry_after_s: When the next one is free.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("this key has used up its requests; send the same request again later")
        self.retry_after_s = retry_after_s


class QueueFullError(ServiceError):
    """As much as allowed is working or waiting.

    Attributes:
        retry_after_s: When a place can be expected.
        what: `requests` or `pixels`.
    """

    def __init__(self, retry_after_s: int, what: str = "requests") -> None:
        super().__init__(f"the queue has no room for more {what}; send the same request again later")
        self.what, self.retry_after_s = what, retry_after_s


class NotReadyError(ServiceError):
    """The service is starting or has failed its golden check."""


class DrainingError(ServiceError):
    """The service is shutting down."""


class DeadlineError(ServiceError):
    """The request took longer than allowed."""


TABLE: Mapping[type[Exception], tuple[HTTPStatus, str, str]] = {
    codec.InvalidImageError: (HTTPStatus.UNPROCESSABLE_ENTITY, "corrupt-image", "The image is corrupt"),
    codec.UnsupportedImageError: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-image", "Not an accepted image"),
    codec.NotAStreamError: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not-a-stream", "Not a Bijou stream"),
    codec.CorruptStreamError: (HTTPStatus.UNPROCESSABLE_ENTITY, "corrupt-stream", "The stream is corrupt"),
    codec.UnknownModelError: (HTTPStatus.CONFLICT, "unknown-model", "The model is not served"),
    codec.LimitError: (HTTPStatus.UNPROCESSABLE_ENTITY, "over-limit", "Larger than a limit allows"),
    codec.OptionError: (HTTPStatus.UNPROCESSABLE_ENTITY, "bad-option", "An option is out of range or in conflict"),
    codec.TargetError: (HTTPStatus.UNPROCESSABLE_ENTITY, "target-out-of-reach", "The target cannot be met"),
    codec.ModelError: (HTTPStatus.SERVICE_UNAVAILABLE, "model-failure", "A model cannot be used"),
    codec.BijouError: (HTTPStatus.UNPROCESSABLE_ENTITY, "refused", "The codec refused the input"),
    MalformedRequestError: (HTTPStatus.BAD_REQUEST, "malformed-request", "The request is malformed"),
    BodyTooLargeError: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body-too-large", "The body is too large"),
    EncodedBodyError: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "encoded-body", "Content-Encoding is not accepted"),
    MissingKeyError: (HTTPStatus.UNAUTHORIZED, "key-missing", "An API key is needed"),
    WrongKeyError: (HTTPStatus.FORBIDDEN, "key-unknown", "The API key is not known"),
    QuotaError: (HTTPStatus.TOO_MANY_REQUESTS, "quota-used-up", "The key's quota is used up"),
    NotAcceptableError: (HTTPStatus.NOT_ACCEPTABLE, "not-acceptable", "No accepted format can be written"),
    QueueFullError: (HTTPStatus.SERVICE_UNAVAILABLE, "queue-full", "The queue is full"),
    NotReadyError: (HTTPStatus.SERVICE_UNAVAILABLE, "not-ready", "The service is not ready"),
    DrainingError: (HTTPStatus.SERVICE_UNAVAILABLE, "draining", "The service is shutting down"),
    DeadlineError: (HTTPStatus.GATEWAY_TIMEOUT, "deadline", "The request took too long"),
}
"""Class -> status, last part of the type, title."""

OTHERS: tuple[tuple[HTTPStatus, str, str], ...] = (
    (HTTPStatus.BAD_REQUEST, "bad-request", "Bad Request"),
    (HTTPStatus.NOT_FOUND, "not-found", "Not Found"),
    (HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", "Method Not Allowed"),
    (HTTPStatus.REQUEST_TIMEOUT, "headers-too-slow", "The headers took too long"),
    (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large", "The headers are too large"),
    (HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error", "Internal error"),
)
"""Problems that come from the framework or the protocol rather than from an error class of ours."""
NOBODY_READS = 499
"""Status of a request whose client has gone; it is counted, never sent."""


def problem(status: int, slug: str, title: str, detail: str, **members: Any) -> Response:
    """A problem document as a response.

    Args:
        status: HTTP status, repeated in the document.
        slug: Last part of the `type` URN.
        title: The same for every problem of this type.
        detail: One sentence about this occurrence that says what to do.
        **members: Extension members, JSON values.
    """
    document = {"type": TYPE_PREFIX + slug, "title": title, "status": int(status), "detail": detail, **members}
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    return Response(json.dumps(document), status_code=int(status), media_type=MEDIA_TYPE, headers=headers)


def of_error(error: Exception) -> Response:
    """The problem for an error of the table, with its attributes as extension members."""
    status, slug, title = next(TABLE[cls] for cls in type(error).__mro__ if cls in TABLE)
    members: dict[str, Any] = {}
    if isinstance(error, codec.LimitError):
        members = {"limit": error.limit, "value": error.value, "maximum": error.maximum}
    elif isinstance(error, codec.UnknownModelError):
        members = {"model": error.model_id, "served": list(error.served)}
    response = problem(status, slug, title, str(error), **members)
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        response.headers["Retry-After"] = str(getattr(error, "retry_after_s", RETRY_AFTER_S))
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Bearer realm="bijou"'
    if isinstance(error, DrainingError | BodyTooLargeError | DeadlineError):
        # The rest of the body may never be read, so the connection cannot be used again.
        response.headers["Connection"] = "close"
    return response


async def _known(request: Request, error: Exception) -> Response:
    return of_error(error)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    detail = {404: "there is no such route; see /docs", 405: "the route has another method; see /docs"}
    slug = status.phrase.lower().replace(" ", "-")
    response = problem(status, slug, status.phrase, detail.get(status, "the request is malformed"))
    response.headers.update(error.headers or {})
    return response


async def _invalid_options(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [
        {"option": ".".join(map(str, e["loc"][1:])), "message": e["msg"].removeprefix("Value error, ")}
        for e in error.errors()
    ]
    status, slug, title = TABLE[codec.OptionError]
    detail = "; ".join(f"{f['option']}: {f['message']}".removeprefix(": ") for f in faults)
    return problem(status, slug, title, detail, errors=faults)


class Failsafe:
    """Innermost ASGI middleware: whatever no handler knows becomes a problem and a log entry, never a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; answer with 500 if that fails before the response has begun."""
        begun = False

        async def watch(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as error:
            if begun or scope["type"] != "http":
                raise
            structlog.get_logger(__name__).error("unexpected error", exc_info=error)
            await of_unexpected()(scope, receive, send)


def of_unexpected() -> Response:
    """The problem that says nothing of what happened."""
    return problem(500, "internal-error", "Internal error", "something failed here; the request may be sent again")


async def _unexpected(request: Request, error: Exception) -> Response:
    return of_unexpected()


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=NOBODY_READS)


def install(app: FastAPI) -> None:
    """Make every failure of the application a problem document."""
    for cls in TABLE:
        app.add_exception_handler(cls, _known)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid_options)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(Failsafe)
