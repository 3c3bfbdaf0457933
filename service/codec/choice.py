"""Latent values and what their bins cost -> the bins an encoder takes: rate-aware, with some bins left to choice.

The encoder may take the next bin towards 0 instead of the nearest one where the bits it saves are worth the distortion,
but only for values below the middle of their bin. No decoder knows of it. Of a picture that a decoder may have made it
leaves alone what lies where decoders put values: no nearer to 0 than a bin's reach (`quantise`). Everything is integer.

Who knows what a bin costs elsewhere, in bins coded later and in points that they move, may say so (`Values.elsewhere`);
then values above the middle of their bin have the same choice.

Source: K. Ramchandran and M. Vetterli, "Rate-Distortion Optimal Fast Thresholding with Complete JPEG/MPEG Decoder
Compatibility", IEEE Trans. Image Processing 3(5), 1994.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Integers, Shorts
from service.codec.centroids import Centroids
from service.codec.coder_tables import COST_UNIT, Tables
from service.codec.quantise import STEP_UNIT, Steps, quantise, rounded

MOVE_LIMIT = 2**20
"""Largest |cost| of a move, in 1/256 bit."""
BEYOND_BIN = 129
"""No value lies so far out of the middle of its nearest bin, in 1/256 bin."""


@dataclass(frozen=True)
class Values:
    """The values of a pass, and what their bins cost.

    Attributes:
        latent: [C, H, W], lattice units, |value| <= STATE_LIMIT.
        shift: How far off the best values lie for errors around them, in lattice units, likewise; they count in
            distortion, not in which bins there are to choose from.
        steps: Of these channels.
        means: What the prior says of each bin, in 1/8 bin, [C, H, W].
        scales: Its scale index, likewise.
        tables: The entropy coder's, for the bits of a bin.
        centroids: Where in their bins values lie.
        held: Whether the encoder leaves alone what a decoder may have put where it lies.
        elsewhere: What the next bin towards 0, in the place of the nearest, costs elsewhere, in 1/256 bit, [C, H, W];
            None: not known.
    """

    latent: Integers
    shift: Integers
    steps: Steps
    means: Shorts
    scales: Shorts
    tables: Tables
    centroids: Centroids
    held: bool
    elsewhere: Shorts | None = None

    def prices(self, bins: Integers, places: NDArray[np.intp]) -> Integers:
        """What bins cost at some places, in 1/256 bit."""
        return self.tables.costs(bins, self.means.ravel()[places], self.scales.ravel()[places])

    def points(self, bins: Integers, places: NDArray[np.intp]) -> Integers:
        """How far from the middle of some bins their points will lie, as far as the prior can tell, in 1/256 bin."""
        shifts = self.centroids.of(bins, self.means.ravel()[places], self.scales.ravel()[places])
        outward: Integers = 4 * self.steps.outward * np.sign(bins)
        return outward + shifts

    def least(self, channel: NDArray[np.intp]) -> Integers:
        """From where on out of the middle of its bin a value of a channel has no choice, in 1/256 bin."""
        reach: Integers = self.steps.reach[channel]
        if self.held:
            return -4 * reach
        return np.zeros_like(reach) if self.elsewhere is None else np.full_like(reach, BEYOND_BIN)

    def costs_elsewhere(self, places: NDArray[np.intp]) -> Integers:
        """What the next bin towards 0 costs elsewhere at some places, in 1/256 bit."""
        if self.held or self.elsewhere is None:
            return np.zeros(places.shape, np.int32)
        return self.elsewhere.ravel()[places].astype(np.int32)

    def pull(self, places: NDArray[np.intp], width: Integers) -> NDArray[np.int64]:
        """The shift at some places, in 1/256 bin; width: of each one's bins."""
        return self.shift.ravel()[places].astype(np.int64) * (256 * STEP_UNIT) // width


def choose(values: Values) -> Integers:
    """Choose the bin of each latent value: the nearest, or the next one towards 0 if that pays, [C, H, W]."""
    steps, bins = values.steps, quantise(values.latent, values.steps)
    if not steps.weight.any():
        return bins
    flat = bins.ravel()
    place = np.flatnonzero(flat)
    channel = place // bins[0].size
    width, magnitude = steps.width[channel], np.abs(flat[place])
    position = _position(values.latent.ravel()[place], magnitude, width)
    movable = position < values.least(channel)
    place, position, channel, width = place[movable], position[movable], channel[movable], width[movable]
    near = flat[place]
    sign = np.sign(near)
    far = near - sign
    best = position + sign * values.pull(place, width)
    now, then = sign * values.points(near, place), sign * values.points(far, place) - 256
    worth = (now - then) * (2 * best - now - then) * steps.weight[channel]
    saved = values.prices(near, place) - values.prices(far, place) - values.costs_elsewhere(place)
    flat[place] = np.where(saved * (2**20 // COST_UNIT) > worth, far, near)
    return bins


def moves(bins: Integers, values: Values, places: NDArray[np.intp]) -> tuple[Integers, Integers]:
    """What it costs to take one of a bin's neighbours in its place, and which of the two costs less.

    Args:
        bins: What `choose` gave, flat.
        values: What it was given.
        places: Of some of the bins.

    Returns:
        Costs in 1/256 bit, distortion included, within ±MOVE_LIMIT, and 1 or -1: towards which bin. No bin that the
        encoder has no choice in costs less than nothing, so that what was decoded stays as it is.
    """
    steps, channel = values.steps, places // values.latent[0].size
    latent, chosen = values.latent.ravel()[places], bins[places]
    width, weight, sign = steps.width[channel], steps.weight[channel].astype(np.int64), np.where(latent < 0, -1, 1)
    nearest = np.abs(rounded(latent, width, width // 2))
    settled = (nearest == 0) | (_position(latent, nearest, width) >= values.least(channel))
    magnitude = chosen * sign
    off = _position(latent, magnitude, width) + sign * values.pull(places, width)
    price, lost = values.prices(chosen, places), np.square(off - sign * values.points(chosen, places))
    elsewhere = values.costs_elsewhere(places)
    costs = []
    for step in (1, -1):
        moved = (sign * (magnitude + step)).astype(np.int32)
        more = np.square(off - 256 * step - sign * values.points(moved, places)) - lost
        worth = more * weight // (2**20 // COST_UNIT)
        dearer = values.prices(moved, places) - price - step * elsewhere
        costs.append(np.where(settled, np.maximum(worth + np.maximum(dearer, 0), 0), worth + dearer))
    cost = np.minimum(*costs).clip(-MOVE_LIMIT, MOVE_LIMIT).astype(np.int32)
    return cost, np.where(costs[0] < costs[1], sign, -sign).astype(np.int32)


def choices(latent: Integers, steps: Steps) -> tuple[int, int]:
    """How many of some values, [C, H, W], the encoder has a choice for, and how many if they lay anywhere, by 64.

    Only values count whose nearest bins are not 0.
    """
    magnitude = np.abs(quantise(latent, steps))
    movable = (magnitude > 0) & (_position(latent, magnitude, steps.column) < -4 * steps.reach[:, None, None])
    return int(movable.sum()), int(np.count_nonzero(magnitude, axis=(1, 2)) @ (32 - steps.reach))


def _position(latent: Integers, magnitude: Integers, width: Integers) -> Integers:
    """How far out of the middle of the bin of a magnitude some values lie, in 1/256 bin."""
    position: Integers = (np.abs(latent) * STEP_UNIT - magnitude * width) * 256 // width
    return position
