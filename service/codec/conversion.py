"""Pictures that were luma and chroma once: found out, and coded as what they were. Lossless streams only.

Who decodes a JPEG file, a WebP file or a Photo CD makes red, green and blue of 8-bit luma and chroma, and only one
colour in four, six or nine can come of it. Nothing of that shows, but whoever codes such pixels as if all colours were
possible pays two to three bits a pixel for it. So if the colours of a picture are those of a known conversion, luma and
chroma are coded in their place; a decoder converts them again, as was done before, to the same pixels. The few pixels
that no luma and chroma give are said one by one.

Sources: JFIF 1.02 (E. Hamilton, 1992), in libjpeg's 16-bit arithmetic; libwebp's arithmetic; Photo YCC (Kodak, 1992),
in the arithmetic that the 24 Kodak pictures were made with, which was found from them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Bytes8, Integers, Shorts
from service.codec.errors import CorruptStreamError

Colours = tuple[Integers, Integers, Integers]
"""Red, green and blue, of any one shape."""
NEAR = (0, -1, 1, -2, 2)
"""How far luma may lie from what a linear estimate says."""
SAMPLE, LEAST_COLOURS = 2**14, 64
"""Pixels that are looked at first, and how many different colours they must have to tell anything."""
FEWEST = 64
"""One pixel in so many may have a colour that no luma and chroma give."""
FARTHEST = 127
"""How far beyond 0 ... 255, all colours together, what was clipped is looked for."""
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
    """

    name: str
    formula: Callable[[Integers, Integers, Integers], Colours]
    middle: tuple[int, int, int]

    def unclipped(self, luma: Integers, blue: Integers, red: Integers) -> Colours:
        """Luma and both chromas, 0 ... 255 -> red, green and blue."""
        return self.formula(luma, blue - self.middle[1], red - self.middle[2])

    def pixels(self, converted: NDArray[np.integer]) -> Bytes8:
        """Luma and both chromas, 0 ... 255, [..., 3] -> red, green, blue."""
        colours = self.unclipped(*np.moveaxis(converted.astype(np.int32), -1, 0))
        return np.stack([np.clip(own, 0, 255) for own in colours], -1).astype(np.uint8)

    @functools.cached_property
    def _linear(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A matrix and what is added: red, green, blue -> about luma and both chromas."""
        places = np.array(self.middle, np.int32)[:, None] + 64 * np.eye(3, 4, 1, np.int32)
        colours = np.stack(self.unclipped(*places)).astype(np.float64)
        back = np.linalg.inv((colours[:, 1:] - colours[:, :1]) / 64)
        return back.astype(np.float32), (self.middle - back @ colours[:, 0]).astype(np.float32)

    def estimated(self, pixels: Bytes8) -> Bytes8:
        """Luma and both chromas near those of any pixels, [..., 3]."""
        matrix, constant = self._linear
        result: Bytes8 = np.clip(np.rint(pixels @ matrix.T + constant), 0, 255).astype(np.uint8)
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
            result[clipped[found]] = _unpacked(behind[found])
            missing[clipped[found]] = False
        return result, missing

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
            off = np.linalg.norm(matrix @ clipped.astype(np.float32) + constant[:, None] - own, axis=0)
            packed = (np.minimum(off, FARTHEST).astype(np.int32) << 24) | (luma << 16) | near.astype(np.int32)
            np.minimum.at(best, _face_places(*clipped), packed)
        return np.where(best == nothing, -1, best & 0xFFFFFF)


def _face_places(red: Integers, green: Integers, blue: Integers) -> Integers:
    """Places of colours on the faces of the colour cube; of those on several faces, on the first of them."""
    on_red, on_green = ((own == 0) | (own == 255) for own in (red, green))
    face = np.where(on_red, red >> 7, np.where(on_green, 2 + (green >> 7), 4 + (blue >> 7)))
    return (face << 16) | (np.where(on_red, green, red) << 8) | np.where(on_red | on_green, blue, green)


def _unpacked(packed: Integers) -> Bytes8:
    return np.stack([packed >> 16, (packed >> 8) & 255, packed & 255], -1).astype(np.uint8)


JPEG = Conversion("JPEG", _jfif, (128, 128, 128))
WEBP = Conversion("WebP", _webp, (126, 128, 128))
PHOTO_CD = Conversion("Photo CD", _photo_ycc, (94, 156, 137))
CONVERSIONS = (JPEG, WEBP, PHOTO_CD)
"""As streams number them, from 1 on."""


def lifted(converted: Bytes8, conversion: Conversion) -> Shorts:
    """Luma and both chromas, [..., 3] -> blue, green, red of a picture whose colours are like them, less 128, [..., 3].

    The flow's colour step makes of these luma, minus the mean of both chromas, and their difference.
    """
    luma, blue, red = np.moveaxis(converted.astype(np.int16) - np.array(conversion.middle, np.int16), -1, 0)
    co = red - blue
    cg = -(blue + (co >> 1))
    t = luma - (cg >> 1)
    b = t - (co >> 1)
    return np.stack([b, cg + t, co + b], -1)


def settled(lifted: NDArray[np.signedinteger], conversion: Conversion) -> Integers:
    """The reverse of `lifted`."""
    b, g, r = np.moveaxis(lifted.astype(np.int32), -1, 0)
    co = r - b
    t = b + (co >> 1)
    return unmixed(t + ((g - t) >> 1), g - t, co, conversion)


def unmixed(luma: Integers, cg: Integers, co: Integers, conversion: Conversion) -> Integers:
    """What the flow's colour step makes of `lifted` planes -> luma and both chromas, [..., 3]."""
    blue = -cg - (co >> 1)
    return np.stack([luma, blue, co + blue], -1) + np.array(conversion.middle, np.int32)


@dataclass(frozen=True)
class Converted:
    """A picture as luma and chroma.

    Attributes:
        conversion: What made red, green and blue of them.
        values: Luma and both chromas, [H, W, 3].
        exceptions: Pixels that have another colour, as streams have them.
    """

    conversion: Conversion
    values: Bytes8
    exceptions: bytes

    @property
    def number(self) -> int:
        """The conversion's number in streams."""
        return CONVERSIONS.index(self.conversion) + 1


def found_in(pixels: Bytes8) -> Converted | None:
    """A picture, [H, W, 3], as luma and chroma; None if its colours tell of no conversion."""
    flat = pixels.reshape(-1, 3)
    for conversion in CONVERSIONS:
        if not _tells_of(flat[:: max(1, len(flat) // SAMPLE)], conversion):
            continue
        values, missing = conversion.undone(flat)
        if np.count_nonzero(missing) * FEWEST <= len(flat):
            return Converted(conversion, values.reshape(pixels.shape), _listed(flat, np.flatnonzero(missing)))
    return None


def _tells_of(sample: Bytes8, conversion: Conversion) -> bool:
    """Whether enough colours of some pixels, [N, 3], show that a conversion has made them.

    Clipped ones and greys say nothing: nearly any conversion gives them.
    """
    inside = ((sample > 0) & (sample < 255)).all(1) & (sample.max(1) > sample.min(1))
    colours = np.unique(sample[inside], axis=0)
    if len(colours) < LEAST_COLOURS:
        return False
    return bool(np.count_nonzero(conversion.undone(colours)[1]) * FEWEST <= len(colours))


_EXCEPTION = np.dtype([("place", "<u4"), ("colour", "u1", 3)])


def _listed(pixels: Bytes8, places: NDArray[np.intp]) -> bytes:
    listed = np.empty(len(places), _EXCEPTION)
    listed["place"], listed["colour"] = places, pixels[places]
    return listed.tobytes()


def with_exceptions(pixels: Bytes8, exceptions: bytes) -> Bytes8:
    """Pixels, [H, W, 3], with those that a stream says one by one.

    Raises:
        CorruptStreamError: No encoder lists these.
    """
    if len(exceptions) % _EXCEPTION.itemsize:
        raise CorruptStreamError("the list of pixels is cut; the stream is damaged")
    listed, result = np.frombuffer(exceptions, _EXCEPTION), pixels.copy()
    places = listed["place"].astype(np.int64)
    if places.size and (places[-1] >= result[..., 0].size or (np.diff(places) <= 0).any()):
        raise CorruptStreamError("the list of pixels is impossible; the stream is damaged")
    result.reshape(-1, 3)[places] = listed["colour"]
    return result
