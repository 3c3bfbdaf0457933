"""What a caller may ask for: query options by name, retries, and what progress callbacks hear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypedDict

Metadata = Literal["none", "icc", "all"]
ImageFormat = Literal["png", "webp", "jpeg", "tiff", "avif"]


class ReEncodeOptions(TypedDict, total=False):
    """At most one of the first four; without any, a stream comes back as it is and an image at quality 75."""

    quality: float
    target_bpp: float
    target_psnr: float
    max_bytes: int
    stable: bool
    effort: Literal[0, 1, 2]
    model: str
    metadata: Metadata


class EncodeOptions(ReEncodeOptions, total=False):
    """The same options as for encoding again."""


class DecodeOptions(TypedDict, total=False):
    """`quality` is that of a jpeg or avif."""

    format: ImageFormat
    scale: Literal[1, 2, 4, 8, 16]
    quality: int


@dataclass(frozen=True)
class Retries:
    """How often and how long to try.

    Attributes:
        attempts: Most attempts, the first one included.
        total_s: No attempt starts later than this after the first one did.
        wait_s: Back-off before the second attempt; doubles each time, and a random part of it is waited.
        most_wait_s: Longest back-off. A longer Retry-After is honoured nevertheless, as far as `total_s` allows.
    """

    attempts: int = 8
    total_s: float = 120.0
    wait_s: float = 0.5
    most_wait_s: float = 20.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.total_s, self.wait_s, self.most_wait_s) < 0:
            raise ValueError("attempts must be at least 1, and no time negative")


@dataclass(frozen=True)
class Transfer:
    """One step of a call.

    Attributes:
        stage: Bytes were sent, bytes were received, or the call waits before its next attempt.
        attempt: 1 for the first.
        done_bytes: Sent or received so far in this attempt.
        total_bytes: Of the whole body, if known.
        wait_s: Until the next attempt, if it waits.
        reason: Why it has to try again, if it waits.
    """

    stage: Literal["send", "receive", "retry"]
    attempt: int
    done_bytes: int = 0
    total_bytes: int | None = None
    wait_s: float = 0.0
    reason: str = ""


Progress = Callable[[Transfer], None]
