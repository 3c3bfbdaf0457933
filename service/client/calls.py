"""Arguments <-> messages, without I/O: what to send for a method, and what its answer means."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from service.client.errors import ForeignAnswerError, IntegrityError
from service.client.results import Image, Stream, StreamInfo, content_values, stream_values
from service.client.sources import Body, Source

T = TypeVar("T")
DIGEST = "sha-256=:"


@dataclass(frozen=True)
class Answer:
    """A success, with its bytes in memory or in a file.

    Attributes:
        headers: Names in lower case.
        body: None if the bytes are in the file.
        path: None if they are in memory.
        digest: SHA-256 of the bytes as they arrived, hexadecimal.
    """

    headers: Mapping[str, str]
    body: bytes | None
    path: Path | None
    digest: str


@dataclass(frozen=True)
class Call(Generic[T]):
    """One call of the service.

    Attributes:
        method: GET or POST.
        route: Below the base URL.
        query: Options.
        read: Answer -> result; ForeignAnswerError if the answer makes no sense.
        body: What is sent.
        target: File to write the answer to; None: memory.
        checked: Whether the answer has to come with a digest.
    """

    method: str
    route: str
    query: Mapping[str, str]
    read: Callable[[Answer], T]
    body: Body | None = None
    target: Path | None = None
    checked: bool = False


def to_stream(route: str, source: Source, to: Path | None, options: Mapping[str, Any]) -> Call[Stream]:
    """/encode or /re-encode."""

    def read(answer: Answer) -> Stream:
        values = content_values(answer.headers, answer.body, answer.path, answer.digest)
        return Stream(**values, **stream_values(answer.headers))

    return Call("POST", route, query_of(options), read, Body.of(source), to, checked=True)


def to_image(source: Source, to: Path | None, options: Mapping[str, Any]) -> Call[Image]:
    """/decode."""

    def read(answer: Answer) -> Image:
        return Image(**content_values(answer.headers, answer.body, answer.path, answer.digest))

    return Call("POST", "decode", query_of(options), read, Body.of(source), to, checked=True)


def to_info(source: Source) -> Call[StreamInfo]:
    """/inspect."""
    return Call("POST", "inspect", {}, lambda answer: StreamInfo.of(_json(answer)), Body.of(source))


def to_json(route: str) -> Call[Any]:
    """A GET that answers with JSON."""
    return Call("GET", route, {}, _json)


def query_of(options: Mapping[str, Any]) -> dict[str, str]:
    """Options as the query has them; None is left out."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in options.items()
        if value is not None
    }


def check_digest(headers: Mapping[str, str], sha256: bytes, required: bool) -> None:
    """Compare what arrived with its Content-Digest (RFC 9530).

    Raises:
        IntegrityError: The digest is malformed or another.
        ForeignAnswerError: It is required and missing.
    """
    entries = [entry.strip() for entry in headers.get("content-digest", "").split(",")]
    stated = next((entry.removeprefix(DIGEST).rstrip(":=") for entry in entries if entry.startswith(DIGEST)), None)
    if stated is None and not required:
        return
    if stated is None:
        raise ForeignAnswerError("the answer has no Content-Digest")
    try:
        expected = base64.b64decode(stated + "=" * (-len(stated) % 4), validate=True)
    except binascii.Error:
        expected = b""
    if expected != sha256:
        raise IntegrityError("the answer was damaged on its way: its bytes do not have the digest it came with")


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.body or b"")
    except ValueError:
        raise ForeignAnswerError("the answer is not JSON") from None
