"""Pixels that were clipped when they were decoded -> planes as they were before.

Decoding clips to 0 ... 255, and what overshot is lost to whoever encodes the picture again: the latent he sees is off
by more than bins allow for, and quality would fall with every generation. So an encoder that recognises its own
output, because many pixels come out exactly as they went in, takes a saturated pixel for a bound and not for a value:
what its first attempt decodes to beyond the bound fits as well. A few rounds of this find the first encoder's latent,
or one close by that is found again in every later generation.

Source: projections onto convex sets; D. Youla and H. Webb, "Image Restoration by the Method of Convex Projections",
1982.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.codec import container, lattice
from service.codec.arrays import Bytes8, Floats, Shorts

RECOGNISED_SHARE = 0.08
"""Share of the unsaturated pixels that must come out unchanged for a picture to pass for the encoder's own output:
of other photographs one or two in a hundred do at quality 75. A picture taken for it by mistake costs time only."""
LAST_CODE = container.code_of(90)
"""Above quality 90 bins are too narrow to survive the rounding of pixels, clipped or not."""
ROUNDS = 6


class Coded(Protocol):
    """A picture as it was coded: its words, the pixels they decode to, and the planes behind these, if kept."""

    @property
    def parts(self) -> tuple[tuple[bytes, ...], ...]:
        """Of each tile."""

    @property
    def pixels(self) -> Bytes8 | None:
        """[H, W, 3]."""

    @property
    def planes(self) -> Floats | Shorts | None:
        """[1, 3, H, W], neither rounded nor clipped."""


C = TypeVar("C", bound=Coded)


def saturated(pixels: Bytes8) -> NDArray[np.bool_]:
    """Which pixels, [H, W], have a channel at either end."""
    ends: NDArray[np.bool_] = ((pixels == 0) | (pixels == 255)).any(-1)
    return ends


def settle(first: C, pixels: Bytes8, unit: int, encode: Callable[[Floats | Shorts], C]) -> C:
    """The coded picture whose pixels agree best with the given ones; `first` unless this is the encoder's own output.

    Args:
        first: The pixels encoded as they are, lossy.
        pixels: [H, W, 3].
        unit: Lattice units in a grey level.
        encode: Encodes planes at the quality of `first`.
    """
    clear, coded = ~saturated(pixels), first
    if coded.pixels is None or clear.all() or _agreement(coded.pixels[clear], pixels[clear]) < RECOGNISED_SHARE:
        return first
    best, share = first, _agreement(coded.pixels, pixels)
    reference = lattice.to_planes(pixels, unit)
    for _ in range(ROUNDS):
        if share == 1 or coded.planes is None:
            break
        planes: Any = reference.astype(coded.planes.dtype)
        low, high = planes <= -lattice.CENTRE * unit, planes >= (255 - lattice.CENTRE) * unit
        np.minimum(planes, coded.planes, out=planes, where=low)
        np.maximum(planes, coded.planes, out=planes, where=high)
        previous, coded = coded, encode(planes)
        if coded.parts == previous.parts or coded.pixels is None:
            break
        agreement = _agreement(coded.pixels, pixels)
        if agreement > share:
            best, share = coded, agreement
    return best


def _agreement(decoded: Bytes8, pixels: Bytes8) -> float:
    """Share of pixels that come out as they went in; 0 of none."""
    return float((decoded == pixels).all(-1).sum()) / max(1, pixels[..., 0].size)
