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

import numpy as np

from service.codec import container, lattice
from service.codec.arrays import Bytes8, Floats
from service.codec.tile import CodedTile

RECOGNISED_SHARE = 0.08
"""Share of the unsaturated pixels that must come out unchanged for a picture to pass for the encoder's own output:
of other photographs one or two in a hundred do at quality 75. A picture taken for it by mistake costs time only."""
LAST_CODE = container.code_of(90)
"""Above quality 90 bins are too narrow to survive the rounding of pixels, clipped or not."""
ROUNDS = 6


Shown = tuple[CodedTile, Bytes8]
"""A tile and the pixels it decodes to."""


def settle(
    first: Shown,
    pixels: Bytes8,
    unit: int,
    encode: Callable[[Floats], CodedTile],
    decode: Callable[[CodedTile], Bytes8],
) -> Shown:
    """The tile whose decoded pixels agree best with the given ones; `first` unless this is the encoder's own output.

    Args:
        first: The pixels encoded as they are, lossy.
        pixels: [H, W, 3].
        unit: Lattice units in a grey level.
        encode: Encodes planes at the quality of `first`.
        decode: Gives the pixels of a tile.
    """
    saturated = ((pixels == 0) | (pixels == 255)).any(-1)
    coded, decoded = first
    if not saturated.any() or _agreement(decoded[~saturated], pixels[~saturated]) < RECOGNISED_SHARE:
        return first
    reference = lattice.to_planes(pixels, unit)
    low, high = reference <= -lattice.CENTRE * unit, reference >= (255 - lattice.CENTRE) * unit
    best, share = first, _agreement(decoded, pixels)
    for _ in range(ROUNDS):
        if share == 1 or coded.planes is None:
            break
        beyond = np.where(low, np.minimum(coded.planes, reference), np.maximum(coded.planes, reference))
        previous, coded = coded, encode(np.where(low | high, beyond, reference))
        if coded.parts == previous.parts:
            break
        decoded = decode(coded)
        agreement = _agreement(decoded, pixels)
        if agreement > share:
            best, share = (coded, decoded), agreement
    return best


def _agreement(decoded: Bytes8, pixels: Bytes8) -> float:
    """Share of pixels that come out as they went in; 0 of none."""
    return float((decoded == pixels).all(-1).sum()) / max(1, pixels[..., 0].size)
