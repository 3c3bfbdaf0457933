"""Where in their bins values lie on average, by what the prior said of them: shipped integers.

A dequantiser sees bins and what is around them, but not what the prior foretold of each. Where a bin is taken although
the prior's mean lies far from it, values lie nearer to that mean than others in the same bin do; and where bins are
tied or left to choice, they lie where no density would tell.

Source: S. Lloyd, "Least squares quantization in PCM", IEEE Trans. Inf. Theory 28(2), 1982: a point belongs at the
centroid of its bin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Integers, Shorts

MAGNITUDES = 3
"""Sizes of bins that are told apart: 0, 1 and all others."""
ONE_BIN = 8
"""A bin, in the unit of means."""
FAR = ONE_BIN
"""Means farther than this from the middle of a bin count as so far away."""
DISTANCES = 2 * FAR + 1
BEYOND_MEANS = 1024
"""Bins this large lie a bin and more beyond any mean."""


@dataclass(frozen=True)
class Centroids:
    """Those of some channels at one quality.

    Attributes:
        table: In 1/256 bin away from 0, [MAGNITUDES, SCALES, DISTANCES], as `places_of` finds them; those of bin 0 are
            odd functions of the mean.
    """

    table: NDArray[np.int8]

    def of(self, bins: Integers, means: Shorts, scales: Shorts) -> Shorts:
        """How far the points of some bins lie from where they would be otherwise, in 1/256 bin; any one shape.

        Args:
            bins: Signed.
            means: What the prior said of them, in 1/8 bin.
            scales: Their scale indices.
        """
        size, scale, farther = places_of(bins, means, scales)
        scale_indices = np.int16(self.table.shape[1])
        found = self.table.ravel().take((size * scale_indices + scale) * np.int16(DISTANCES) + farther)
        result: Shorts = away(bins) * found
        return result


def places_of(bins: Integers, means: Shorts, scales: Shorts) -> tuple[Shorts, Shorts, Shorts]:
    """Where in the table some bins are: three of their shape; arguments as above.

    Their size, their scale index, and how much farther away from 0 the prior's mean lies than their middle, FAR added.
    """
    near = np.clip(bins, -BEYOND_MEANS, BEYOND_MEANS).astype(np.int16)
    sign = away(near)
    magnitude = near * sign
    farther = np.clip(sign * means - np.int16(ONE_BIN) * magnitude, -FAR, FAR) + np.int16(FAR)
    return np.minimum(magnitude, np.int16(MAGNITUDES - 1)), scales, farther


def away(bins: Integers | Shorts) -> Shorts:
    """The sign of bins; of 0 it is 1."""
    sign: Shorts = (bins < 0).view(np.int8) * np.int16(-2) + np.int16(1)
    return sign


NO_CENTROIDS = Centroids(np.zeros((MAGNITUDES, 1, DISTANCES), np.int8))
