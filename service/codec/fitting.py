"""Bins of one level of one tile, and what the prior said of them -> the calibration that codes them in fewest bits.

All that decides is integer, or float64 in a fixed order, so that every encoder finds the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Integers, Number, Shorts
from service.codec.calibration import (
    CHANNEL_SCALE,
    CHANNELS,
    FLAG_SCALE,
    OFF_LIMIT,
    SHIFT_LIMIT,
    WEIGHT_BITS,
    WEIGHT_LIMIT,
    WEIGHT_SCALE,
    Calibration,
    Residuals,
    Said,
    corrected,
)
from service.codec.centroids import ONE_BIN
from service.codec.coder_tables import Tables, alike
from service.codec.prior import PHASES, codes_chroma

SAMPLE, SPARSE = 2**12, 4
"""So many bins of each pass and channel, evenly spread, decide; one of SPARSE of them on the shift of a colour."""
RIDGE = float(2**23)
"""What keeps weights small where they matter little."""
PRECISIONS = np.rint(2.0 ** (16 - 0.4 * np.maximum(np.arange(70) - 15, 0)))
"""What an error counts at each scale index: 1 / scale**2, from a third of a bin on."""


def calibrate(passes: Sequence[Said], size: tuple[int, int], tables: Tables) -> Calibration:
    """Measure how far the prior was off at a level, rows and columns `size`, whose bins are chosen.

    Passes behind those that are given have nothing to be corrected.
    """
    residuals = Residuals(size)
    samples = []
    for number, said in enumerate(passes):
        samples.append(_Sample(number, said, residuals, tables))
        residuals.learn(number, said.bins, said.means)
    halves = samples[: len(PHASES)], samples[len(PHASES) :]
    colours = cheapest(halves[0]), cheapest(halves[1])
    each = [sample.chosen(colours[codes_chroma(number)]) for number, sample in enumerate(samples)]
    shifts, weights = ([own for of_pass in kind for own in of_pass] for kind in zip(*each, strict=True))
    rest = CHANNELS - len(shifts)
    return Calibration(colours, (*map(int, shifts), *(0,) * rest), (*weights, *(None,) * rest))


class _Sample:
    """Bins of a pass, evenly spread, and what they would cost."""

    def __init__(self, number: int, said: Said, residuals: Residuals, tables: Tables) -> None:
        bins, means, scales = said[:3]
        features = residuals.features(number, means)
        self._bins, self._means, self._scales = _thinned(bins), _thinned(means), _thinned(scales)
        self._features, self._count = _thinned(features), bins[0].size
        self._tables, self._last = tables, np.int16(len(tables.choice) - 1)

    def sparse_cost(self, shift: int) -> int:
        """What some of the bins would cost with one shift and the means as they are, in 1/256 bit."""
        few = np.s_[:, ::SPARSE]
        return int(self._costs(self._bins[few], self._means[few], self._scales[few], np.int16(shift)).sum())

    def _costs(self, bins: Integers, means: Shorts, scales: Shorts, shifts: Shorts | np.int16) -> Integers:
        moved = np.clip(scales + shifts, 0, self._last).astype(np.int16)
        return self._tables.costs(bins.ravel(), means.ravel(), moved.ravel()).reshape(bins.shape)

    def _cost(self, channels: NDArray[np.bool_], means: Shorts, shifts: Integers) -> NDArray[np.int64]:
        """What all bins of some channels would cost with some means and shifts, in 1/256 bit; one number each."""
        own_shifts = shifts[channels, None].astype(np.int16)
        costs = self._costs(self._bins[channels], means[channels], self._scales[channels], own_shifts)
        total: NDArray[np.int64] = costs.sum(1, dtype=np.int64) * self._count // max(1, costs.shape[1])
        return total

    def chosen(self, colour: int) -> tuple[Integers, list[Integers | None]]:
        """Each channel's shift beyond its colour's, and its weights."""
        everything, shifts = np.ones(len(self._bins), np.bool_), np.full(len(self._bins), colour, np.int32)
        weights = self._weights()
        means = np.stack([corrected(*own) for own in zip(self._means, self._features, weights, strict=True)])
        least, found = self._cost(everything, self._means, shifts), self._cost(everything, means, shifts)
        said = self._price(weights.ravel(), WEIGHT_SCALE).reshape(weights.shape).sum(1)
        flag = self._price(np.array([0, 1], np.int32), FLAG_SCALE)
        better = found + said + flag[1] < least + flag[0]
        means, least = np.where(better[:, None], means, self._means), np.where(better, found, least)
        return self._moved(means, shifts, least), [w if b else None for w, b in zip(weights, better, strict=True)]

    def _moved(self, means: Shorts, shifts: Integers, least: NDArray[np.int64]) -> Integers:
        """How far each channel's shift is from the given one, for which it costs `least`: as long as that pays."""
        beyond = np.zeros_like(shifts)
        for direction in (1, -1):
            moving = beyond == 0
            while moving.any():
                tried = np.clip(beyond + direction, -SHIFT_LIMIT, SHIFT_LIMIT)
                extra = self._price(tried, CHANNEL_SCALE) - self._price(beyond, CHANNEL_SCALE)
                found = least.copy()
                found[moving] = self._cost(moving, means, shifts + tried)
                moving &= found + extra < least
                beyond, least = np.where(moving, tried, beyond), np.where(moving, found, least)
        return beyond

    def _price(self, values: Integers, scale: int) -> Integers:
        return self._tables.costs(values, *alike(values.size, scale))

    def _weights(self) -> Integers:
        """Weights by which errors of means are least, in squares of the scales; [bands, features].

        Products and sums are whole numbers below 2**53, so they are exact in any order.
        """
        features = self._features.astype(np.float64)
        errors = np.clip(ONE_BIN * self._bins - self._means, -OFF_LIMIT, OFF_LIMIT).astype(np.float64)
        weighted = features * PRECISIONS[self._scales][:, None]
        matrix = weighted @ features.transpose(0, 2, 1) + RIDGE * np.eye(features.shape[1])
        solution = solved(matrix, (weighted @ errors[:, :, None])[:, :, 0])
        weights: Integers = np.rint(solution * 2**WEIGHT_BITS).clip(-WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int32)
        return weights


def _thinned(values: NDArray[Number]) -> NDArray[Number]:
    """[..., rows, columns] -> [..., at most SAMPLE], evenly spread, without what they are spread over."""
    rows, columns = values.shape[-2:]
    return values.reshape(*values.shape[:-2], rows * columns)[..., :: -(-rows * columns // SAMPLE) or 1].copy()


def solved(matrix: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve N systems, [N, k, k] positive definite and [N, k], by elimination in a fixed order of operations.

    Libraries for this order them as suits the processor, and their last digits differ from one to the next.
    """
    matrix, right = matrix.copy(), right.copy()
    size = right.shape[1]
    for i in range(size):
        for j in range(i + 1, size):
            factor = matrix[:, j, i] / matrix[:, i, i]
            matrix[:, j] -= factor[:, None] * matrix[:, i]
            right[:, j] -= factor * right[:, i]
    for i in reversed(range(size)):
        for j in range(i + 1, size):
            right[:, i] -= matrix[:, i, j] * right[:, j]
        right[:, i] /= matrix[:, i, i]
    return right


def cheapest(samples: Sequence[_Sample]) -> int:
    """The shift that codes the bins of some passes in the fewest bits: up or down from 0 as long as that pays."""

    def cost(shift: int) -> int:
        return sum(sample.sparse_cost(shift) for sample in samples)

    best, least = 0, cost(0)
    for direction in (1, -1):
        while abs(best + direction) <= SHIFT_LIMIT and (found := cost(best + direction)) < least:
            best, least = best + direction, found
        if best:
            break
    return best
