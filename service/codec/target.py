"""What an encode aims at -> the quality code that meets it, by trying codes.

Sizes and fidelities grow with the quality code, almost always; the search bisects and never returns a miss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from service.codec.arrays import Bytes8
from service.codec.container import LAST_CODE, code_of
from service.codec.errors import OptionError, TargetError

DEFAULT_QUALITY = 75.0


@dataclass(frozen=True)
class Target:
    """What an encode aims at; at most one is set, none means quality 75.

    Attributes:
        quality: 1 ... 99 in steps of 1/8, or 100: lossless.
        bits_per_pixel: The best quality whose stream is no larger.
        max_bytes: The best quality whose stream is no larger.
        psnr_db: The lowest quality that reaches it.
    """

    quality: float | None = None
    bits_per_pixel: float | None = None
    max_bytes: int | None = None
    psnr_db: float | None = None

    def __post_init__(self) -> None:
        given = [v for v in (self.quality, self.bits_per_pixel, self.max_bytes, self.psnr_db) if v is not None]
        if len(given) > 1:
            raise OptionError("give one of quality, target_bpp, max_bytes and target_psnr, not several")
        if any(not math.isfinite(v) or v <= 0 for v in given):
            raise OptionError("a target must be a positive number")
        quality = self.quality
        if quality is not None and (not (1 <= quality <= 99 or quality == 100) or quality * 8 != int(quality * 8)):
            raise OptionError("quality must be 1 to 99 in steps of 1/8, or 100 for lossless")


@dataclass(frozen=True)
class Attempt:
    """A picture coded at a quality code (None: lossless), and the pixels its stream decodes to."""

    code: int | None
    stream: bytes
    pixels: Bytes8


def aim(target: Target, attempt: Callable[[int | None], Attempt], original: Bytes8) -> Attempt:
    """Find the quality code a target asks for.

    Args:
        target: The target.
        attempt: Codes the picture at a quality code.
        original: Pixels that fidelity is measured against.

    Returns:
        The attempt that meets it.

    Raises:
        TargetError: No code meets it; the text says what would.
    """
    budget = target.max_bytes
    if target.bits_per_pixel is not None:
        budget = int(target.bits_per_pixel * original[..., 0].size / 8)
    if budget is not None:
        best, last = _search(attempt, lambda tried: len(tried.stream) <= budget, lowest=False)
        if best is None:
            smallest = len(last.stream)
            raise TargetError(f"the smallest stream of this picture has {smallest} bytes; allow at least that many")
        return best
    if target.psnr_db is not None:
        wanted = target.psnr_db
        best, _ = _search(attempt, lambda tried: psnr_db(original, tried.pixels) >= wanted, lowest=True)
        return best or attempt(None)
    quality = DEFAULT_QUALITY if target.quality is None else target.quality
    return attempt(None if quality == 100 else code_of(quality))


def _search(
    attempt: Callable[[int], Attempt], good: Callable[[Attempt], bool], lowest: bool
) -> tuple[Attempt | None, Attempt]:
    """Bisect the quality codes for the lowest, or highest, good one, None if there is none; and the last attempt.

    Where none is good the last attempt is the one nearest to it: code 0 for the highest, LAST_CODE for the lowest.
    """
    first, last, best = 0, LAST_CODE, None
    while True:
        middle = (first + last) // 2
        tried = attempt(middle)
        fits = good(tried)
        if fits:
            best = tried
        if fits == lowest:
            last = middle - 1
        else:
            first = middle + 1
        if first > last:
            return best, tried


def psnr_db(a: Bytes8, b: Bytes8) -> float:
    """Peak signal-to-noise ratio of two pictures in dB, all channels together; inf if they are equal."""
    squares = 0
    for ours, theirs in zip(a, b, strict=True):  # row by row: differences of a whole picture take six times its memory
        difference = ours.astype(np.float64) - theirs
        squares += int(np.vdot(difference, difference))
    return math.inf if squares == 0 else 10 * math.log10(255**2 * a.size / squares)
