"""First thing a request meets: refusals that need no body, and the two ways to read a body.

A declared Content-Length over the limit is answered here; what arrives without one is counted while it streams.
FastAPI's `max_body_size` does the same but answers in plain text, outside every exception handler.
"""

from __future__ import annotations

from fastapi import Request
from starlette.datastructures import Headers, UploadFile
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.health import Health, State
from service.keys import KeyRing
from service.metrics import Metrics
from service.problems import (
    BodyTooLargeError,
    DrainingError,
    EncodedBodyError,
    MalformedRequestError,
    MissingKeyError,
    NotReadyError,
    QuotaError,
    ServiceError,
    WrongKeyError,
    of_error,
)

FORM_FIELD = "file"
GUARDED_FACTS = frozenset({"/models", "/info", "/v1/models", "/v1/info"})
"""What asks for a key beside work; probes, metrics, the page and the API description never do."""
REASONS: dict[type[ServiceError], str] = {
    MissingKeyError: "key",
    WrongKeyError: "key",
    QuotaError: "quota",
    DrainingError: "draining",
    NotReadyError: "not_ready",
    BodyTooLargeError: "body_too_large",
    EncodedBodyError: "content_encoding",
    MalformedRequestError: "malformed",
}


class Admission:
    """ASGI middleware that refuses work by headers and state alone.

    Args:
        app: What is behind.
        max_body_bytes: Longest body.
        health: Read for every request.
        keys: Who may ask.
        metrics: Refusals are counted.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, health: Health, keys: KeyRing, metrics: Metrics) -> None:
        self._app, self._max_body_bytes, self._health = app, max_body_bytes, health
        self._keys, self._metrics = keys, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the first refusal, or pass the request on."""
        if scope["type"] == "http":
            try:
                self._judge(scope)
            except ServiceError as error:
                self._metrics.rejected.labels(REASONS[type(error)]).inc()
                await of_error(error)(scope, receive, send)
                return
        await self._app(scope, self._counted(receive), send)

    def _judge(self, scope: Scope) -> None:
        work, headers = scope["method"] == "POST", Headers(scope=scope)
        if not work and scope["path"] not in GUARDED_FACTS:
            return
        key = self._keys.check(headers.get("authorization"))
        if work:
            self._state()
            self._length(headers)
            self._encoding(headers)
            self._keys.spend(key)

    def _counted(self, receive: Receive) -> Receive:
        received_bytes = 0

        async def counted() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > self._max_body_bytes:
                self._metrics.rejected.labels("body_too_large").inc()
                raise self._too_large()
            return message

        return counted

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(f"the body is longer than the limit of {self._max_body_bytes} bytes")

    def _state(self) -> None:
        if self._health.state is State.DRAINING:
            raise DrainingError("this replica is shutting down; send the same request to another")
        if self._health.state is not State.READY:
            raise NotReadyError("this replica is not ready; send the same request later or to another")

    def _length(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdecimal()):
            raise MalformedRequestError("Content-Length is not a number")
        if int(length) > self._max_body_bytes:
            raise self._too_large()

    def _encoding(self, headers: Headers) -> None:
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise EncodedBodyError("send the file as it is, without Content-Encoding")


async def read_body(request: Request) -> bytes:
    """The file a request carries: the raw body, or the form field `file` of a multipart one.

    Raises:
        MalformedRequestError: Empty, or a form without exactly that one file.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        data = await request.body()
    else:
        async with request.form(max_files=1, max_fields=0) as form:
            part = form.get(FORM_FIELD)
            if not isinstance(part, UploadFile):
                raise MalformedRequestError(f"the form has no file named {FORM_FIELD}")
            data = await part.read()
    if not data:
        raise MalformedRequestError("the body is empty; send the file's bytes")
    return data
