"""A stream -> one that decoding and encoding again gives: what `stable` asks for.

Decode, encode, and again: most pictures come to rest within a few rounds. Two things can keep one from it. A cycle,
streams that give one another, is left by way of a mixture of their pictures. And where pixels are saturated, what
overshoots is clipped in every round: bins creep, and quality with them. So the encoder's own rounds, which look for
what was clipped (`saturation`), come first; most pictures need one and lose nothing. Then pixels are taken as they
are, which loses some tenths of a dB but comes to rest more often. Last, the picture is encoded anew with its saturated
pixels drawn inwards as far as they overshot, so that less is clipped.

Above quality 90 (`saturation.LAST_CODE`) bins are narrower than the rounding of pixels, and only the first rounds are
tried. A stream at rest when pixels are taken as they are is one the encoder gives too: its first attempt then agrees
with the picture everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from service.codec import lattice
from service.codec.arrays import Bytes8, Floats, Planes, Shorts
from service.codec.lattice import Area
from service.codec.saturation import LAST_CODE
from service.codec.steps import Run
from service.codec.target import Attempt
from service.codec.writer import Source, reader, source_of, write_as_is, write_stream

UNIT = lattice.LOSSY_UNIT
OWN_ROUNDS = 8
"""Most rounds of the encoder as it is."""
ROUNDS = 36
"""Most rounds with pixels taken as they are."""
STAGES = ((6, 14), (12, 30), (24, 40))
"""After them: how often margins grow, and most rounds then. Margins stay from stage to stage."""
TOLERATED = UNIT // 2
"""Overshoot that margins do not follow, in lattice units."""
FARTHEST = 127 * UNIT
"""Most that margins reach."""
BLOCK = 16
"""Side in pixels of what is taken from either picture in a mixture."""


class Margins:
    """How far values are drawn inwards before they are encoded.

    Args:
        read: Planes of an area of the picture, [1, 3, h, w].
        size: Height and width of the picture.
    """

    def __init__(self, read: Callable[[Area], Floats], size: tuple[int, int]) -> None:
        self._read = read
        self._inwards: Shorts = np.zeros((1, 3, *size), np.int16)

    def read(self, area: Area) -> Floats:
        """Planes of an area, drawn inwards."""
        return self._read(area) - area.of(self._inwards)

    def grow(self, planes: Planes) -> bool:
        """Draw values further inwards by what they overshot; whether any did."""
        lowest, highest = -lattice.CENTRE * UNIT, (255 - lattice.CENTRE) * UNIT
        beyond = planes - np.clip(planes, lowest, highest)
        beyond[np.abs(beyond) <= TOLERATED] = 0
        self._inwards = np.clip(self._inwards + beyond, -FARTHEST, FARTHEST).astype(np.int16)
        return bool(beyond.any())


def settle(first: Attempt, code: int, source: Source, run: Run) -> tuple[Attempt, bool]:
    """Decode and encode until the stream stays the same.

    Args:
        first: The source at this code, as the encoder gave it.
        code: Quality code.
        source: What was encoded.
        run: What runs.

    Returns:
        A stream at rest and its picture, and True; or, if none was found, `first`, which has lost nothing.
    """

    def own(pixels: Bytes8) -> Attempt:
        again = source_of(replace(source.picture, pixels=pixels), UNIT, run, source.alpha)
        return Attempt(code, *write_stream(again, code, run))

    def as_it_is(pixels: Bytes8) -> Attempt:
        again = replace(source, picture=replace(source.picture, pixels=pixels))
        stream, decoded, _ = write_as_is(again, reader(pixels, UNIT, run), code, run)
        return Attempt(code, stream, decoded)

    def drawn_inwards(times: int) -> Attempt | None:
        latest = None
        for _ in range(times):
            stream, decoded, planes = write_as_is(source, margins.read, code, run)
            if not margins.grow(planes):
                break
            latest = Attempt(code, stream, decoded)
        return latest

    found, settled = repeat(first, own, OWN_ROUNDS)
    if settled or code > LAST_CODE:
        return found if settled else first, settled
    found, settled = repeat(found, as_it_is, ROUNDS)
    if settled:
        return found, True
    pixels = source.picture.pixels
    margins = Margins(reader(pixels, UNIT, run), pixels.shape[:2])
    for growths, rounds in STAGES:
        drawn = drawn_inwards(growths)
        if drawn is None:
            break
        found, settled = repeat(drawn, as_it_is, rounds)
        if settled:
            return found, True
    return first, False


def repeat(found: Attempt, encode: Callable[[Bytes8], Attempt], rounds: int) -> tuple[Attempt, bool]:
    """Encode what was decoded, at most so many rounds: the last attempt, and whether encoding its pixels gives it."""
    pixels, met = found.pixels, {_digest(found)}
    for number in range(rounds):
        following = encode(pixels)
        if following.stream == found.stream and pixels is found.pixels:
            return found, True
        digest = _digest(following)
        cycle = digest in met
        met.add(digest)
        pixels = mixed(following.pixels, found.pixels, number) if cycle else following.pixels
        found = following
    return found, False


def _digest(attempt: Attempt) -> bytes:
    return hashlib.blake2b(attempt.stream, digest_size=16).digest()


def mixed(one: Bytes8, other: Bytes8, seed: int) -> Bytes8:
    """Blocks of either picture, about as many of each; which ones follows from the seed, everywhere the same."""
    rows, columns = (-(-side // BLOCK) for side in one.shape[:2])
    drawn = np.random.PCG64(seed).random_raw(rows * columns).reshape(rows, columns) >> np.uint64(63)
    mask = np.kron(drawn, np.ones((BLOCK, BLOCK), np.uint64))[: one.shape[0], : one.shape[1], None]
    return np.where(mask == 1, one, other)
