"""How far the prior is off at one level of one tile: corrections of its means and scale indices, said in the stream.

The prior knows what pictures are like on average. What one picture does differently everywhere alike, such as more
detail than foretold, chroma that was interpolated from half the resolution, or a constant that rounding left in it,
the encoder measures (`fitting`) and says: for each pass and channel how far scale indices are to be moved, and a linear
correction of means by what the prior was off by around.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Integers, Shorts
from service.codec.centroids import ONE_BIN
from service.codec.coder_tables import Tables, alike, symbols_of
from service.codec.entropy import Decoder, Encoder
from service.codec.errors import CorruptStreamError
from service.codec.prior import PASSES, PHASES, bands_of, codes_chroma, phase_of


class Said(NamedTuple):
    """A pass of one tile.

    Attributes:
        bins: [bands, rows, columns].
        means: What the prior said of them, in 1/8 bin, likewise.
        scales: Their scale indices as it said them, likewise.
        checks: Places of the bins, flat, whose parity follows from the others'.
        wrong: How many of these did not have it when every bin was chosen for itself.
    """

    bins: Integers
    means: Shorts
    scales: Shorts
    checks: NDArray[np.intp]
    wrong: int


SHIFT_LIMIT = 7
"""Largest |shift| of a colour, and of a channel beyond that."""
WEIGHT_BITS = 6
"""Weights are in 1/2**WEIGHT_BITS,"""
WEIGHT_LIMIT = 127
"""at most this large."""
OFF_LIMIT = 2047
"""What weights are multiplied with is clipped to this, in 1/8 bin."""
MEAN_LIMIT = 2**13
"""Corrected means are clipped to this."""
COLOUR_SCALE, CHANNEL_SCALE, FLAG_SCALE, WEIGHT_SCALE = 20, 10, 10, 34
"""Scale indices that the numbers said are coded with."""

_SIDES, _ENDS = ((0, -1), (0, 1)), ((-1, 0), (1, 0))
_CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))
AROUND = ((), (_CORNERS,), (_SIDES, _ENDS), (_SIDES, _ENDS, _CORNERS))
"""Groups of neighbours, (rows down, columns right), that are known at each phase of a channel."""
_STARTS = np.cumsum([0, *(len(bands_of(number)) for number in range(PASSES))])
"""Where the channels of each pass begin among those of all."""
CHANNELS = int(_STARTS[-1])
"""Channels of all passes together."""


def features_of(number: int) -> int:
    """How many weights a channel of a pass has."""
    return 2 + len(AROUND[number % len(PHASES)]) + codes_chroma(number)


@dataclass(frozen=True)
class Calibration:
    """What the stream says of one level of one tile.

    Attributes:
        colours: Luma's and chroma's shift.
        shifts: How far each channel's shift is from its colour's; channels of all passes one after the other.
        weights: Of each channel, [features_of(its pass)], in 1/64; None: its means are right.
    """

    colours: tuple[int, int] = (0, 0)
    shifts: tuple[int, ...] = (0,) * CHANNELS
    weights: tuple[Integers | None, ...] = (None,) * CHANNELS

    def write(self, encoder: Encoder, tables: Tables) -> None:
        """Code it."""
        flags = [own is not None for own in self.weights]
        encoder.add(symbols_of(np.array([*self.colours, *self.shifts, *flags], np.int32), *_head(), tables))
        weights = [own for own in self.weights if own is not None]
        if weights:
            together = np.concatenate(weights)
            encoder.add(symbols_of(together, *alike(together.size, WEIGHT_SCALE), tables))

    @classmethod
    def read(cls, decoder: Decoder) -> Calibration:
        """The reverse of `write`.

        Raises:
            CorruptStreamError: No encoder writes this.
        """
        head = decoder.take(*_head()).tolist()
        colours, shifts, flags = head[:2], head[2 : 2 + CHANNELS], head[2 + CHANNELS :]
        if max(map(abs, head)) > SHIFT_LIMIT or not set(flags) <= {0, 1}:
            raise CorruptStreamError("a level's calibration is impossible; the stream is damaged")
        sizes = [size if flag else 0 for size, flag in zip(_sizes(), flags, strict=True)]
        together = decoder.take(*alike(sum(sizes), WEIGHT_SCALE)) if any(sizes) else np.empty(0, np.int32)
        if np.abs(together).max(initial=0) > WEIGHT_LIMIT:
            raise CorruptStreamError("a level's weights are impossible; the stream is damaged")
        each = np.split(together, np.cumsum(sizes)[:-1])
        weights = tuple(own if flag else None for own, flag in zip(each, flags, strict=True))
        return cls((colours[0], colours[1]), tuple(shifts), weights)


def _sizes() -> list[int]:
    return [features_of(number) for number in range(PASSES) for _ in bands_of(number)]


def _head() -> tuple[Shorts, Shorts]:
    scales = [COLOUR_SCALE] * 2 + [CHANNEL_SCALE] * CHANNELS + [FLAG_SCALE] * CHANNELS
    return np.zeros(len(scales), np.int16), np.array(scales, np.int16)


@dataclass
class Residuals:
    """How far the prior's means were off at the positions of a tile's level that are known; 0 elsewhere, and beyond.

    Attributes:
        size: Rows and columns of the level.
    """

    size: tuple[int, int]
    _off: Shorts = field(init=False)

    def __post_init__(self) -> None:
        self._off = np.zeros((9, self.size[0] + 2, self.size[1] + 2), np.int16)

    def learn(self, number: int, bins: Integers, means: Shorts) -> None:
        """Take in the bins of a pass and what the prior said of them, both [bands, rows, columns]."""
        row, column = phase_of(number)
        off = np.clip(ONE_BIN * bins - means, -OFF_LIMIT, OFF_LIMIT)
        self._off[bands_of(number), 1 + row : -1 : 2, 1 + column : -1 : 2] = off

    def features(self, number: int, means: Shorts) -> Integers:
        """What the weights of a pass are for, in 1/8 bin, [bands, features, rows, columns].

        The prior's mean; a bin; what it was off by at each group of neighbours in the same channel, added up; and of
        chroma in luma of the same orientation.
        """
        bands, rows, columns = means.shape
        (row, column), groups = phase_of(number), AROUND[number % len(PHASES)]
        result = np.empty((bands, features_of(number), rows, columns), np.int32)
        result[:, 0], result[:, 1] = means, ONE_BIN  # the weight of a constant is one of a whole bin

        def off(channels: Sequence[int], down: int, right: int) -> Shorts:
            top, left = 1 + row + down, 1 + column + right
            return self._off[channels, top : top + 2 * rows - 1 : 2, left : left + 2 * columns - 1 : 2]

        for index, group in enumerate(groups, 2):
            result[:, index] = sum(off(bands_of(number), *place).astype(np.int32) for place in group)
        if codes_chroma(number):
            result[:, -1] = off([band // 3 * 3 for band in bands_of(number)], 0, 0)
        return np.clip(result, -OFF_LIMIT, OFF_LIMIT, out=result)


def corrected(means: Shorts, features: Integers, weights: Integers) -> Shorts:
    """Means of a channel by their features, [features, ...], and weights, [features]."""
    total = np.full(means.shape, 1 << WEIGHT_BITS - 1, np.int32)
    for feature, weight in zip(features, weights.tolist(), strict=True):
        if weight:
            total += weight * feature
    return np.clip(means + (total >> WEIGHT_BITS), -MEAN_LIMIT, MEAN_LIMIT).astype(np.int16)


class Calibrated:
    """The prior of one level of one tile with its calibration, pass by pass.

    Args:
        calibration: What the stream says.
        size: Rows and columns of the level.
        tables: The coder's.
    """

    def __init__(self, calibration: Calibration, size: tuple[int, int], tables: Tables) -> None:
        self._calibration, self._last = calibration, len(tables.choice) - 1
        self._residuals = None if all(own is None for own in calibration.weights) else Residuals(size)

    def said(self, number: int, means: Shorts, scales: Shorts) -> tuple[Shorts, Shorts]:
        """What the prior said of a pass, corrected; [bands, rows, columns]."""
        own = slice(*_STARTS[number : number + 2])
        weights = self._calibration.weights[own]
        shifts = np.array(self._calibration.shifts[own]) + self._calibration.colours[codes_chroma(number)]
        if shifts.any():
            scales = np.clip(scales + shifts[:, None, None].astype(np.int16), 0, self._last).astype(np.int16)
        if self._residuals is not None and any(each is not None for each in weights):
            features = self._residuals.features(number, means)
            each = zip(means, features, weights, strict=True)
            means = np.stack([m if w is None else corrected(m, f, w) for m, f, w in each])
        return means, scales

    def learn(self, number: int, bins: Integers, means: Shorts) -> None:
        """Tell the bins of a pass, and the means as the prior said them."""
        if self._residuals is not None:
            self._residuals.learn(number, bins, means)
