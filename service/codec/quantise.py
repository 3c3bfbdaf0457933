"""Latent <-> bins: uniform scalar quantisation with a dead zone, one step per band.

The only lossy room. Everything is integer: steps in 1/64 lattice unit, dead zones in 1/64 bin, offsets in 1/256
bin. A reconstruction point is clipped into its own bin's decision interval, less a margin that the rounding of
pixels to 8 bits seldom crosses, so that quantising it again gives the same bin.

Source: R. Gray and D. Neuhoff, "Quantization", IEEE Trans. Inf. Theory 44(6), 1998.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.codec.arrays import Integers, Shorts

STEP_UNIT = 64
"""Steps are integers in 1/STEP_UNIT of a lattice unit."""
STATE_LIMIT = 2**19
"""Latents are at most this large, so that products stay within 32 bits."""


@dataclass(frozen=True)
class Steps:
    """How some channels are quantised.

    Attributes:
        width: Bin width of each channel in 1/64 lattice unit, [C], at least 64.
        dead: How far decision thresholds are moved outward, in 1/64 bin, 0 ... 31.
        outward: How far reconstruction points are, 0 ... dead.
        margin: Least distance of a reconstruction point from a threshold where the bin is wide enough, in lattice
            units, [C].
    """

    width: Integers
    dead: int
    outward: int
    margin: Integers

    @property
    def column(self) -> Integers:
        """Widths, [C, 1, 1]."""
        return self.width[:, None, None]

    @property
    def lead(self) -> Integers:
        """What is added before dividing: (1/2 - dead / 64) of a step, rounded down; [C, 1, 1]."""
        return self.column * (32 - self.dead) // 64

    def channels(self, first: int, last: int) -> Steps:
        """Those of some of the channels."""
        return Steps(self.width[first:last], self.dead, self.outward, self.margin[first:last])


def quantise(latent: Integers, steps: Steps) -> Integers:
    """Number the bin each latent value falls in.

    Args:
        latent: Forward flow's output, [C, H, W], lattice units, |value| <= STATE_LIMIT.
        steps: Of these channels.

    Returns:
        sign(latent) * floor(|latent| / width + 1/2 - dead / 64).
    """
    magnitude = (np.abs(latent) * STEP_UNIT + steps.lead) // steps.column
    return np.where(latent < 0, -magnitude, magnitude)


def dequantise(bins: Integers, offsets: Shorts, steps: Steps) -> Integers:
    """The point of each bin the decoder takes.

    Args:
        bins: [C, H, W].
        offsets: In 1/256 bin, |offset| < 128, [C, H, W]; for bin 0 in 1/256 of its wider bin.
        steps: As in `quantise`.

    Returns:
        Lattice values, rounded to nearest (halves up), each inside its own bin.
    """
    width, sign = steps.column, np.sign(bins)
    magnitude = np.abs(bins)
    zero = sign == 0
    outward = np.where(sign < 0, -offsets, offsets).astype(np.int32)
    middle = magnitude * width + (width * steps.outward) // 64 + ((outward * width) >> 8)
    middle[zero] = ((outward * ((width * (32 + steps.outward)) >> 5)) >> 8)[zero]
    value = (middle + STEP_UNIT // 2) // STEP_UNIT
    lowest = -((steps.lead - magnitude * width) // STEP_UNIT)
    highest = -((steps.lead - (magnitude + 1) * width) // STEP_UNIT) - 1
    lowest[zero] = -highest[zero]
    margin = np.minimum(steps.margin[:, None, None], (highest - lowest) // 3)
    value = np.clip(value, lowest + margin, highest - margin)
    signed: Integers = np.where(sign < 0, -value, value)
    return signed
