"""Headers and JSON of an answer -> what a caller gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from service.client.errors import ForeignAnswerError


@dataclass(frozen=True)
class Content:
    """Bytes that passed the integrity check: in memory, or in the file they were asked to be written to.

    Attributes:
        body: The bytes; None if they are in the file.
        path: The file; None if they are in memory.
        media_type: Of the bytes.
        digest: SHA-256, hexadecimal.
        model_id: The model used.
        quality: Of the stream written or read, 1 to 100; 100 is lossless.
        seconds: Stage -> time the server spent.
    """

    body: bytes | None
    path: Path | None
    media_type: str
    digest: str
    model_id: str
    quality: float
    seconds: Mapping[str, float]

    @property
    def data(self) -> bytes:
        """The bytes, read from the file if they are there."""
        if self.body is not None:
            return self.body
        assert self.path is not None
        return self.path.read_bytes()


@dataclass(frozen=True)
class Image(Content):
    """A decoded picture as an image file."""


@dataclass(frozen=True)
class Stream(Content):
    """A `.bij` stream.

    Attributes:
        bits_per_pixel: Container included.
        psnr_db: Against the picture that was encoded; inf if they are equal.
        stable: Whether a stable stream was reached; None if it was not asked for.
        changed: Of an encoding again: whether the bytes differ from those sent; None otherwise.
    """

    bits_per_pixel: float
    psnr_db: float
    stable: bool | None
    changed: bool | None


@dataclass(frozen=True)
class Section:
    """A section of a stream; the stream up to its end decodes to 1/scale."""

    kind: str
    offset: int
    length: int
    scale: int | None


@dataclass(frozen=True)
class StreamInfo:
    """What a stream holds."""

    version: int
    model_id: str
    width: int
    height: int
    quality: float
    lossless: bool
    levels: int
    tiles: int
    sections: tuple[Section, ...]
    bytes_by_scale: Mapping[int, int]
    has_alpha: bool
    grey: bool
    icc_bytes: int
    exif_bytes: int
    total_bytes: int
    complete: bool
    conversion: str | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read the JSON of /inspect; what a newer server adds is left out."""
        values = {field.name: document[field.name] for field in fields(cls)}
        sections = [Section(*(s[field.name] for field in fields(Section))) for s in document["sections"]]
        by_scale = {int(scale): length for scale, length in document["bytes_by_scale"].items()}
        return cls(**{**values, "sections": tuple(sections), "bytes_by_scale": by_scale})


def content_values(headers: Mapping[str, str], body: bytes | None, path: Path | None, digest: str) -> dict[str, Any]:
    """What every kind of content has, by attribute.

    Raises:
        ForeignAnswerError: A header is missing or malformed.
    """
    try:
        return {
            "body": body,
            "path": path,
            "media_type": headers["content-type"].partition(";")[0],
            "digest": digest,
            "model_id": headers["bijou-model"],
            "quality": float(headers["bijou-quality"]),
            "seconds": server_timing(headers.get("server-timing", "")),
        }
    except (KeyError, ValueError) as error:
        raise ForeignAnswerError(f"a header of the answer is missing or malformed ({error})") from None


def stream_values(headers: Mapping[str, str]) -> dict[str, Any]:
    """What a stream has besides.

    Raises:
        ForeignAnswerError: A header is missing or malformed.
    """
    truth: dict[str | None, bool | None] = {"?1": True, "?0": False, None: None}
    try:
        return {
            "bits_per_pixel": float(headers["bijou-bits-per-pixel"]),
            "psnr_db": float(headers["bijou-psnr"]),
            "stable": truth[headers.get("bijou-stable")],
            "changed": truth[headers.get("bijou-generation-changed")],
        }
    except (KeyError, ValueError) as error:
        raise ForeignAnswerError(f"a header of the answer is missing or malformed ({error})") from None


def server_timing(value: str) -> dict[str, float]:
    """Stage -> seconds from a Server-Timing header; entries without a duration are left out."""
    seconds = {}
    for entry in value.split(","):
        stage, _, parameters = entry.strip().partition(";")
        name, _, duration_ms = parameters.strip().partition("=")
        if name == "dur":
            seconds[stage] = float(duration_ms) / 1000
    return seconds
