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

from service import codec

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:bijou:problem:"


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


class QueueFullError(ServiceError):
    """As many requests as allowed are working or waiting.

    Attributes:
        retry_after_s: When a slot can be expected.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("the queue is full; send the same request again later")
        self.retry_after_s = retry_after_s


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
    NotAcceptableError: (HTTPStatus.NOT_ACCEPTABLE, "not-acceptable", "No accepted format can be written"),
    QueueFullError: (HTTPStatus.SERVICE_UNAVAILABLE, "queue-full", "The queue is full"),
    NotReadyError: (HTTPStatus.SERVICE_UNAVAILABLE, "not-ready", "The service is not ready"),
    DrainingError: (HTTPStatus.SERVICE_UNAVAILABLE, "draining", "The service is shutting down"),
    DeadlineError: (HTTPStatus.GATEWAY_TIMEOUT, "deadline", "The request took too long"),
}
"""Class -> status, last part of the type, title."""


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
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(getattr(error, "retry_after_s", 5))
    if isinstance(error, DrainingError | BodyTooLargeError):
        # The rest of the body is never read, so the connection cannot be used again.
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


async def _unexpected(request: Request, error: Exception) -> Response:
    structlog.get_logger(__name__).error("unexpected error", exc_info=error)
    return problem(500, "internal-error", "Internal error", "something failed here; the request may be sent again")


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody is left to read it


def install(app: FastAPI) -> None:
    """Make every failure of the application a problem document."""
    for cls in TABLE:
        app.add_exception_handler(cls, _known)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid_options)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)
