"""Latent <-> bins: uniform scalar quantisation.

The only lossy room. Everything is integer: steps in 1/64 lattice unit, shifts in 1/64 bin, offsets in 1/256 bin.
The encoder may take another bin than the nearest one (`choice`), but in decoded pictures only for values nearer to 0
than a bin's reach: a reconstruction point is clipped into the rest of its bin, less a margin that the rounding of
pixels to 8 bits seldom crosses, so that quantising it again gives the same bin whatever the bits.

Source: R. Gray and D. Neuhoff, "Quantization", IEEE Trans. Inf. Theory 44(6), 1998.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Integers, Shorts

UNIT_BITS = 6
STEP_UNIT = 1 << UNIT_BITS
"""Steps are integers in 1/STEP_UNIT of a lattice unit."""
STATE_LIMIT = 2**19
"""Latents are at most this large, so that products stay within 32 bits."""
EXPECTED_ROUNDING = 22
"""What is not yet coded is expected to be rounded down from below this part of a bin, in 1/64: a dead zone."""
DRAFT_ROUNDING = 27
"""The same part where bins are rounded and nothing is priced: smaller bins are likelier."""
FADE = 4
"""Samples from the sides of a tile at which offsets are whole."""
WEIGHT_UNIT = 16
"""Weights are integers in 1/WEIGHT_UNIT bit: distortion in 1/2**16 squared bin times weight is in 1/2**20 bit."""

Sides = tuple[bool, bool, bool, bool]
"""Something for each side: top, left, bottom, right."""


@dataclass(frozen=True)
class Steps:
    """How some channels are quantised.

    Attributes:
        width: Bin width of each channel in 1/64 lattice unit, [C], at least 64.
        outward: How far reconstruction points are moved away from 0, in 1/64 bin, 0 ... 31.
        reach: How far below a bin's middle its reconstruction points may lie and the encoder has no choice, in 1/64
            bin, 0 ... 32, [C]; 32 where the width is below 256, so that the part holds a lattice value.
        margin: Least distance of a reconstruction point from either end of that part, where the part is wide enough,
            in lattice units, [C].
        weight: What a squared bin of distortion is worth, in 1/16 bit, [C]; 0: always the nearest bin.
    """

    width: Integers
    outward: int
    reach: Integers
    margin: Integers
    weight: Integers

    @property
    def column(self) -> Integers:
        """Widths, [C, 1, 1]."""
        return self.width[:, None, None]

    def channels(self, chosen: slice | list[int]) -> Steps:
        """Those of some of the channels."""
        return Steps(self.width[chosen], self.outward, self.reach[chosen], self.margin[chosen], self.weight[chosen])


def quantise(latent: Integers, steps: Steps) -> Integers:
    """Number the nearest bin of each latent value.

    Args:
        latent: Forward flow's output, [C, H, W], lattice units, |value| <= STATE_LIMIT.
        steps: Of these channels.

    Returns:
        sign(latent) * floor(|latent| / width + 1/2).
    """
    return rounded(latent, steps.column, steps.column // 2)


def beyond_dead_zone(latent: Integers, steps: Steps) -> NDArray[np.bool_]:
    """Whether details are expected to have bins other than 0, as in `quantise`."""
    rounded = steps.width * EXPECTED_ROUNDING // 64
    least = -((rounded - steps.width) // STEP_UNIT)  # the least lattice value whose bin is 1
    beyond: NDArray[np.bool_] = np.abs(latent) >= least[:, None, None]
    return beyond


def expected(latent: Integers, width: Integers) -> Integers:
    """What the bins of some details will probably be, with a dead zone; width: of each one's bins."""
    return rounded(latent, width, width * EXPECTED_ROUNDING // 64)


def drafted(latent: Integers, steps: Steps) -> Integers:
    """Bins of details by rounding alone, with a small dead zone that no reconstruction point lies in, [C, H, W]."""
    rounding = np.maximum(steps.reach, DRAFT_ROUNDING)[:, None, None]
    return rounded(latent, steps.column, steps.column * rounding // 64)


def rounded(latent: Integers, width: Integers, rounding: Integers) -> Integers:
    """Bins of a width, rounded up where less than `rounding` is missing, in 1/64 lattice unit."""
    magnitude = (np.abs(latent) * STEP_UNIT + rounding) // width
    return np.where(latent < 0, -magnitude, magnitude)


def points(bins: Integers, width: Integers, outward: int) -> Integers:
    """Where the decoder puts bins if its dequantiser says nothing, in lattice units; width: of each one's bins."""
    shift = (bins != 0) * (width * outward // 64)
    magnitude = (np.abs(bins) * width + shift + STEP_UNIT // 2) // STEP_UNIT
    signed: Integers = np.where(bins < 0, -magnitude, magnitude)
    return signed


def faded(offsets: Shorts, inner: Sides) -> Shorts:
    """Offsets of a tile, ever smaller towards the sides where the picture goes on, 0 on them; rounded down.

    A dequantiser takes the sides of a tile for those of a picture. Where the picture goes on its offsets are wrong
    there, the same all along a side, and what is off at a coarse level shows as a line.

    Args:
        offsets: [C, H, W].
        inner: Sides where the picture goes on.
    """
    if not any(inner):
        return offsets
    rows, columns = (np.minimum(np.arange(n), FADE) for n in offsets.shape[1:])
    whole, (top, left, bottom, right) = np.array([FADE]), inner
    down = np.minimum(rows if top else whole, rows[::-1] if bottom else whole)
    across = np.minimum(columns if left else whole, columns[::-1] if right else whole)
    result: Shorts = (offsets * np.minimum(down[:, None], across) // FADE).astype(np.int16)
    return result


def dequantise(bins: Integers, offsets: Shorts, steps: Steps) -> Integers:
    """The point of each bin the decoder takes.

    Args:
        bins: [C, H, W].
        offsets: What the dequantiser and centroids say, added up, in 1/256 bin, |offset| < 256, [C, H, W].
        steps: As in `quantise`.

    Returns:
        Lattice values, rounded to nearest (halves up), each in the part of its bin where `choose` has no choice.
    """
    result = np.empty(bins.shape, np.int32)
    numbers = zip(*(own.tolist() for own in (steps.width, steps.reach, steps.margin)), strict=True)
    for own, offset, into, each in zip(bins, offsets.astype(np.int32), result, numbers, strict=True):
        into[...] = _points_of_channel(own, offset, steps.outward, *each)
    return result


def _points_of_channel(
    bins: Integers, offsets: Integers, outward: int, width: int, reach: int, margin: int
) -> Integers:
    """`dequantise` for one channel, whose arrays a processor keeps at hand."""
    sign, some = (bins >> 31) | 1, bins != 0
    whole = bins * sign * width
    value = (
        whole + some * np.int32(width * outward // 64) + (offsets * sign * width >> 8) + STEP_UNIT // 2
    ) >> UNIT_BITS
    # Least and largest lattice value there, a part rounded up: x + 63 >> 6.
    lowest = (whole - (width * reach // 64 - STEP_UNIT + 1)) >> UNIT_BITS
    highest = ((whole + (width - width // 2 + STEP_UNIT - 1)) >> UNIT_BITS) - 1
    np.copyto(lowest, -highest, where=~some)
    kept = np.minimum(margin, (highest - lowest) >> 1)
    point: Integers = np.clip(value, lowest + kept, highest - kept, out=value) * sign
    return point
