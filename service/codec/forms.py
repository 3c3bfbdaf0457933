"""Pictures that were luma and chroma once: found out, and coded as what they were. Lossless streams only.

Who decodes a JPEG file, a WebP file or a Photo CD makes red, green and blue of 8-bit luma and chroma, and only one
colour in four, six or nine can come of it. Nothing of that shows, but whoever codes such pixels as if all colours were
possible pays two to three bits a pixel for it. So if the colours of a picture are those of a known conversion, luma and
chroma are coded in their place; a decoder converts them again, as was done before, to the same pixels. If chroma was
interpolated from a quarter of its samples (`subsampling`), only these are coded. The few pixels and samples of which
that is not so are said one by one (`listed`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Bytes8, Floats, Integers, Shorts
from service.codec.conversion import CONVERSIONS, TOGETHER, Conversion
from service.codec.lattice import Area
from service.codec.listed import FEWEST_PLACES, Listed, packed, unpacked
from service.codec.subsampling import ORIENTATIONS, orientation_of, turned, turned_back

SAMPLE, LEAST_COLOURS = 2**14, 64
"""Pixels that are looked at first, and how many different colours they must have to tell anything."""
FEWEST = 64
"""One pixel in so many may have a colour that no luma and chroma give."""


def mixed(blue: Shorts, red: Shorts) -> tuple[Shorts, Shorts]:
    """Both chromas, less their zeros -> minus their mean, rounded up, and their difference: like Cg and Co."""
    co = red - blue
    return -(blue + (co >> 1)), co


def unmixed(cg: Integers, co: Integers) -> tuple[Integers, Integers]:
    """The reverse of `mixed`."""
    blue = -cg - (co >> 1)
    return blue, co + blue


def lifted(converted: Bytes8, conversion: Conversion) -> Shorts:
    """Luma and both chromas, [..., 3] -> blue, green, red of a picture whose colours are like them, less 128, [..., 3].

    The flow's colour step makes luma and what `mixed` gives of these.
    """
    luma, blue, red = np.moveaxis(converted.astype(np.int16) - np.array(conversion.middle, np.int16), -1, 0)
    cg, co = mixed(blue, red)
    t = luma - (cg >> 1)
    b = t - (co >> 1)
    return np.stack([b, cg + t, co + b], -1)


def settled(planes: Floats | Shorts, conversion: Conversion) -> Integers:
    """The reverse of `lifted`: planes [3, H, W] -> luma and both chromas, [H, W, 3]; any from damaged ones."""
    b, g, r = planes.astype(np.int32)
    co = r - b
    t = b + (co >> 1)
    return converted_of(t + ((g - t) >> 1), g - t, co, conversion)


def converted_of(luma: Integers, cg: Integers, co: Integers, conversion: Conversion) -> Integers:
    """What the flow's colour step makes of `lifted` planes -> luma and both chromas, [..., 3]."""
    return np.stack([luma, *unmixed(cg, co)], -1) + np.array(conversion.middle, np.int32)


@dataclass(frozen=True)
class Form:
    """What a lossless stream codes in the place of red, green and blue.

    Attributes:
        conversion: What made red, green and blue.
        orientation: In which chroma was interpolated, as in `subsampling`; None: it was not.
    """

    conversion: Conversion
    orientation: int | None

    @property
    def number(self) -> int:
        """Its number in streams: from 1 on."""
        kind = 0 if self.orientation is None else 1 + self.orientation
        return 1 + CONVERSIONS.index(self.conversion) + len(CONVERSIONS) * kind

    @classmethod
    def of(cls, number: int) -> Form | None:
        """The form with a number; None: red, green and blue."""
        if not number:
            return None
        kind, conversion = divmod(number - 1, len(CONVERSIONS))
        return cls(CONVERSIONS[conversion], kind - 1 if kind else None)

    def chroma(self, kept: Bytes8, size: tuple[int, int]) -> Bytes8:
        """The chromas, [2, H, W], that kept ones, [2, ceil(H / 2), ceil(W / 2)], are interpolated to."""
        assert self.orientation is not None
        own = (size[1], size[0]) if self.orientation % 2 else size
        planes = (turned(plane, self.orientation) for plane in kept)
        whole = (self.conversion.interpolation.whole(plane, own) for plane in planes)
        return np.stack([turned_back(plane, self.orientation) for plane in whole])


LAST_FORM = len(CONVERSIONS) * (1 + ORIENTATIONS)
"""The largest number of a form."""
LIST_WIDTHS = (1, 1, 3)
"""Bytes of what is listed: a sample of either chroma, less the interpolated one, and a pixel."""


@dataclass(frozen=True)
class Converted:
    """A picture as luma and chroma.

    Attributes:
        form: What they are.
        values: Luma and both chromas, [H, W, 3].
        kept: The chromas' kept samples, [2, ceil(H / 2), ceil(W / 2)]; None: chroma was not interpolated.
        lists: Samples and pixels that are different, as streams have them.
    """

    form: Form
    values: Bytes8
    kept: Bytes8 | None
    lists: bytes

    def planes(self, area: Area) -> Floats:
        """What the flow gets of an area, [1, 3, h, w]: without chroma if that was interpolated."""
        values, conversion = self.values[area.top : area.bottom, area.left : area.right], self.form.conversion
        if self.kept is not None:
            luma = values[..., 0].astype(np.float32) - conversion.middle[0]
            return np.repeat(luma[None, None], 3, 1)
        return np.ascontiguousarray(lifted(values, conversion).transpose(2, 0, 1), np.float32)[None]

    def chroma(self) -> Floats | None:
        """Kept samples as the flow gets them, [1, 2, h, w]; None if chroma was not interpolated."""
        if self.kept is None:
            return None
        zeros = self.form.conversion.middle[1:]
        centred = (own.astype(np.int16) - np.int16(zero) for own, zero in zip(self.kept, zeros, strict=True))
        return np.stack(mixed(*centred))[None].astype(np.float32)


def found_in(pixels: Bytes8) -> Converted | None:
    """A picture, [H, W, 3], as luma and chroma; None if its colours tell of no conversion."""
    flat = pixels.reshape(-1, 3)
    colours = _telling(flat[:: max(1, len(flat) // SAMPLE)])
    if len(colours) < LEAST_COLOURS:
        return None
    for conversion in CONVERSIONS:
        if np.count_nonzero(conversion.undone(colours)[1]) * FEWEST > len(colours):
            continue
        values, missing = conversion.undone(flat)
        if np.count_nonzero(missing) * FEWEST > len(flat):
            continue
        places = np.flatnonzero(missing)
        others = places, flat[places]
        sure = ((pixels > 0) & (pixels < 255)).all(2) & ~missing.reshape(pixels.shape[:2])
        halved = _halved(values.reshape(pixels.shape), sure, pixels, conversion)
        if halved is None:
            nothing = np.empty(0, np.intp), np.empty((0, 1), np.uint8)
            lists = packed([nothing, nothing, others])
            return Converted(Form(conversion, None), values.reshape(pixels.shape), None, lists)
        form, kept, own, chromas = halved
        return Converted(form, own, kept, packed([*chromas, others]))
    return None


def _telling(sample: Bytes8) -> Bytes8:
    """The colours of some pixels, [N, 3], that can tell of a conversion: clipped ones and greys come of nearly any."""
    inside = ((sample > 0) & (sample < 255)).all(1) & (sample.max(1) > sample.min(1))
    return np.unique(sample[inside], axis=0)


def _halved(
    values: Bytes8, sure: NDArray[np.bool_], pixels: Bytes8, conversion: Conversion
) -> tuple[Form, Bytes8, Bytes8, list[Listed]] | None:
    """Chroma as kept samples: form, samples, luma and chroma again, and lists of samples that differ; None: it is not.

    Luma and chroma behind clipped colours are not sure: others may do as well, so that chroma can be the interpolated.
    """
    planes, size = np.moveaxis(values[..., 1:], -1, 0), (values.shape[0], values.shape[1])
    orientation = orientation_of(planes[0], sure, conversion.interpolation)
    if orientation is None:
        return None
    form, known = Form(conversion, orientation), turned(sure, orientation)
    each = (conversion.interpolation.kept(turned(plane, orientation), known) for plane in planes)
    kept = np.stack([turned_back(own, orientation) for own in each])
    whole, own = form.chroma(kept, size), values.copy()
    other = np.flatnonzero((~sure & ((whole[0] != planes[0]) | (whole[1] != planes[1]))).ravel())
    wanted = np.concatenate([own.reshape(-1, 3)[other, :1], whole.reshape(2, -1)[:, other].T], 1)
    again, found = conversion.luma_for(wanted, pixels.reshape(-1, 3)[other])
    own.reshape(-1, 3)[other[found]] = again[found]
    lists: list[Listed] = []
    for channel in (1, 2):
        off = (own[..., channel] - whole[channel - 1]).ravel()  # modulo 256
        places = np.flatnonzero(off)
        if len(places) * FEWEST_PLACES > len(off):
            return None
        lists.append((places, off[places, None]))
    return form, kept, own, lists


def shown(planes: Shorts, chroma: Floats | None, lists: bytes, form: Form) -> Bytes8:
    """What a stream codes -> pixels, [H, W, 3].

    Args:
        planes: As the flow gives them, [3, H, W].
        chroma: Kept samples as the flow had them, [2, ceil(H / 2), ceil(W / 2)]; None if chroma was not interpolated.
        lists: As in `Converted`.
        form: What it is.

    Raises:
        CorruptStreamError: No encoder lists these.
    """
    size, conversion = (planes.shape[1], planes.shape[2]), form.conversion
    *chromas, (places, colours) = unpacked(lists, LIST_WIDTHS, size[0] * size[1])
    values = np.empty((*size, 3), np.uint8)
    rows = max(1, TOGETHER // size[1])
    for top in range(0, size[0], rows):
        values[top : top + rows] = settled(planes[:, top : top + rows], conversion)
    if chroma is not None:
        zeros = conversion.middle[1:]
        kept = [own + zero for own, zero in zip(unmixed(*chroma.astype(np.int32)), zeros, strict=True)]
        values[..., 1:] = np.moveaxis(form.chroma(np.clip(kept, 0, 255).astype(np.uint8), size), 0, -1)
    flat = values.reshape(-1, 3)
    for channel, (own, off) in enumerate(chromas, 1):
        flat[own, channel] += off[:, 0]
    for top in range(0, size[0], rows):
        values[top : top + rows] = conversion.pixels(values[top : top + rows])
    flat[places] = colours
    return values
