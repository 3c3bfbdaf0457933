"""How red, green and blue were made of 8-bit luma and chroma, undone: which luma and chroma give a colour.

Sources: JFIF 1.02 (E. Hamilton, 1992), in libjpeg's 16-bit arithmetic; libwebp's arithmetic; Photo YCC (Kodak, 1992),
in the arithmetic that the 24 Kodak pictures were made with, which was found from them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Bytes8, Integers
from service.codec.subsampling import Interpolation

Colours = tuple[Integers, Integers, Integers]
"""Red, green and blue, of any one shape."""
NEAR = (0, -1, 1, -2, 2)
"""How far luma may lie from what a linear estimate says."""
FAR = 16
"""How far luma may lie from another that is behind a clipped colour."""
FARTHEST = 127
"""How far beyond 0 ... 255, all colours together, what was clipped is looked for; and most that counts of how far it is
from an estimate, in halves."""
TOGETHER = 2**18
"""Pixels that are worked on together."""
LINEAR_BITS = 14
FACES = 6
"""Of the colour cube."""


def _jfif(luma: Integers, blue: Integers, red: Integers) -> Colours:
    half = 1 << 15
    green = (half - 22554 * blue - 46802 * red) >> 16
    return luma + ((91881 * red + half) >> 16), luma + green, luma + ((116130 * blue + half) >> 16)


def _webp(luma: Integers, blue: Integers, red: Integers) -> Colours:
    y, u, v = (19077 * luma) >> 8, blue + 128, red + 128
    green = y - ((6419 * u) >> 8) - ((13320 * v) >> 8) + 8708
    return (y + ((26149 * v) >> 8) - 14234) >> 6, green >> 6, (y + ((33050 * u) >> 8) - 17685) >> 6


def _photo_ycc(luma: Integers, blue: Integers, red: Integers) -> Colours:
    y, u, v = 89024 * luma, 145352 * blue, 119374 * red
    return (y + v) >> 16, (y - 12714 * (u >> 16) - 33358 * (v >> 16)) >> 16, (y + u) >> 16


@dataclass(frozen=True)
class Conversion:
    """A way of making red, green and blue of luma and chroma.

    Attributes:
        name: For people.
        formula: Luma and both chromas, these less their zeros -> red, green and blue before they are clipped.
        middle: Luma of mid-grey, and the chromas' zeros.
        interpolation: How chroma is made of a quarter of its samples, where it is.
    """

    name: str
    formula: Callable[[Integers, Integers, Integers], Colours]
    middle: tuple[int, int, int]
    interpolation: Interpolation

    def unclipped(self, luma: Integers, blue: Integers, red: Integers) -> Colours:
        """Luma and both chromas, 0 ... 255 -> red, green and blue."""
        return self.formula(luma, blue - self.middle[1], red - self.middle[2])

    def pixels(self, converted: NDArray[np.integer]) -> Bytes8:
        """Luma and both chromas, 0 ... 255, [..., 3] -> red, green, blue."""
        colours = self.unclipped(*np.moveaxis(converted.astype(np.int32), -1, 0))
        return np.stack([np.clip(own, 0, 255) for own in colours], -1).astype(np.uint8)

    @functools.cached_property
    def _linear(self) -> tuple[Integers, Integers]:
        """A matrix and what is added: red, green, blue -> about luma and both chromas, in 1/2**LINEAR_BITS."""
        places = np.array(self.middle, np.int32)[:, None] + 64 * np.eye(3, 4, 1, np.int32)
        colours = np.stack(self.unclipped(*places))
        back = np.rint(np.linalg.inv((colours[:, 1:] - colours[:, :1]) / 64) * 2**LINEAR_BITS).astype(np.int32)
        return back, (np.array(self.middle, np.int32) << LINEAR_BITS) - back @ colours[:, 0]

    def estimated(self, pixels: Bytes8) -> Bytes8:
        """Luma and both chromas near those of any pixels, [..., 3]."""
        matrix, constant = self._linear
        about = (pixels.astype(np.int32) @ matrix.T + constant + (1 << LINEAR_BITS - 1)) >> LINEAR_BITS
        result: Bytes8 = np.clip(about, 0, 255).astype(np.uint8)
        return result

    @functools.cached_property
    def _chromas(self) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """Which chroma gives red, and which gives blue, by luma and that colour, [256, 256] each; -1: none."""
        luma, chroma = np.mgrid[:256, :256].astype(np.int32)
        tables = []
        for own in (self.unclipped(luma, chroma, chroma)[0], self.unclipped(luma, chroma, chroma)[2]):
            table, inside = np.full((256, 256), -1, np.int16), (own >= 0) & (own <= 255)
            table[luma[inside], own[inside]] = chroma[inside]
            tables.append(table)
        return tables[0], tables[1]

    def undone(self, pixels: Bytes8) -> tuple[Bytes8, NDArray[np.bool_]]:
        """Luma and both chromas of pixels, [N, 3], and which of them there are none for: near ones then."""
        parts = [self._undone(pixels[first : first + TOGETHER]) for first in range(0, max(1, len(pixels)), TOGETHER)]
        values, missing = zip(*parts, strict=True)
        return np.concatenate(values), np.concatenate(missing)

    def _undone(self, pixels: Bytes8) -> tuple[Bytes8, NDArray[np.bool_]]:
        red, green, blue = np.ascontiguousarray(pixels.T).astype(np.int32)
        result = self.estimated(pixels)
        (of_red, of_blue), estimate = self._chromas, result[:, 0].astype(np.int32)
        rest = np.arange(len(pixels))
        for step in NEAR:
            y = np.clip(estimate[rest] + step, 0, 255)
            v, u = of_red[y, red[rest]].astype(np.int32), of_blue[y, blue[rest]].astype(np.int32)
            found = (u >= 0) & (v >= 0) & (self.unclipped(y, u, v)[1] == green[rest])
            result[rest[found]] = np.stack([y[found], u[found], v[found]], -1)
            rest = rest[~found]
        clipped = rest[((pixels[rest] == 0) | (pixels[rest] == 255)).any(1)]
        missing = np.zeros(len(pixels), np.bool_)
        missing[rest] = True
        if clipped.size:
            behind = self._behind[_face_places(red[clipped], green[clipped], blue[clipped])]
            found = behind >= 0
            result[clipped[found]] = _three(behind[found])
            missing[clipped[found]] = False
        return result, missing

    def luma_for(self, converted: Bytes8, pixels: Bytes8) -> tuple[Bytes8, NDArray[np.bool_]]:
        """Luma near by that gives some pixels, [N, 3], with both chromas as they are; and where there is some."""
        result, found = converted.copy(), np.zeros(len(pixels), np.bool_)
        for step in sorted(range(-FAR, FAR + 1), key=abs):
            rest = np.flatnonzero(~found)
            tried = converted[rest].astype(np.int32)
            tried[:, 0] = np.clip(tried[:, 0] + step, 0, 255)
            right = (self.pixels(tried) == pixels[rest]).all(1)
            result[rest[right], 0], found[rest[right]] = tried[right, 0], True
        return result, found

    @functools.cached_property
    def _behind(self) -> Integers:
        """Luma and chromas behind clipped colours, by `_face_places`, packed: the nearest to estimates; -1: none."""
        blue, red = np.mgrid[:256, :256].astype(np.int32).reshape(2, -1)
        nothing, (matrix, constant) = np.iinfo(np.int32).max, self._linear
        best = np.full(FACES << 16, nothing, np.int32)
        for luma in range(256):
            colours = np.stack(self.unclipped(np.full_like(blue, luma), blue, red))
            beyond = np.abs(colours - np.clip(colours, 0, 255)).sum(0, dtype=np.int32)
            near = np.flatnonzero((beyond > 0) & (beyond <= FARTHEST))
            clipped = np.clip(colours[:, near], 0, 255)
            own = np.stack([np.full_like(near, luma), blue[near], red[near]])
            off = (matrix @ clipped + constant[:, None] - (own.astype(np.int32) << LINEAR_BITS)) >> LINEAR_BITS - 4
            far = np.minimum(np.sqrt(np.square(off, dtype=np.int64).sum(0)) / 8, FARTHEST).astype(np.int32)
            packed = (far << 24) | (luma << 16) | near.astype(np.int32)
            np.minimum.at(best, _face_places(*clipped), packed)
        return np.where(best == nothing, -1, best & 0xFFFFFF)


def _face_places(red: Integers, green: Integers, blue: Integers) -> Integers:
    """Places of colours on the faces of the colour cube; of those on several faces, on the first of them."""
    on_red, on_green = ((own == 0) | (own == 255) for own in (red, green))
    face = np.where(on_red, red >> 7, np.where(on_green, 2 + (green >> 7), 4 + (blue >> 7)))
    return (face << 16) | (np.where(on_red, green, red) << 8) | np.where(on_red | on_green, blue, green)


def _three(packed: Integers) -> Bytes8:
    return np.stack([packed >> 16, (packed >> 8) & 255, packed & 255], -1).astype(np.uint8)


JPEG = Conversion("JPEG", _jfif, (128, 128, 128), Interpolation((1, 3, 3, 1), 4, (8, 7)))
WEBP = Conversion("WebP", _webp, (126, 128, 128), Interpolation((1, 3, 3, 1), 4, (8, 8)))
PHOTO_CD = Conversion("Photo CD", _photo_ycc, (94, 156, 137), Interpolation((1, 2, 1, 0), 2, (2, 2)))
CONVERSIONS = (JPEG, WEBP, PHOTO_CD)
"""As streams number them, from 1 on."""
