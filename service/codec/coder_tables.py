"""Which tables code a bin: its mean and scale index -> a table, and the bin -> a symbol of it.

A bin comes with a mean (in 1/8 bin) and a scale index. The mean's whole part is subtracted, its fraction and the scale
index choose a table; a negative fraction flips the sign. Of a bin whose parity is known already (`trellis`) every other
symbol is impossible: its table is the half of the usual one that is left.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from itertools import pairwise

import constriction
import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Integers, Shorts

PRECISION_BITS = 24
"""Every table's frequencies add up to 2**PRECISION_BITS."""
COST_UNIT = 256
"""Costs are in 1/COST_UNIT bit."""
ESCAPE_COST = 8 * COST_UNIT
"""Rough price of the bits that follow an escape; only the encoder's choice of bins reads it."""


@dataclass(frozen=True)
class Symbols:
    """Bins of one pass as the coder sees them, flat and of equal length.

    Attributes:
        tables: Table of each bin.
        residuals: Bin less whole mean, sign flipped where the mean's fraction is negative.
    """

    tables: NDArray[np.int16]
    residuals: Integers


@dataclass(frozen=True)
class Alphabets:
    """What the coder's models are over.

    Attributes:
        models: A categorical model over residuals -half, -half + stride ... half and, last, the escape.
        halves: Largest residual of each.
        stride: From one residual to the next.
    """

    models: tuple[object, ...]
    halves: Integers
    stride: int

    @functools.cached_property
    def ends(self) -> list[int]:
        """Number of the last residual of each model; the escape comes after it."""
        ends: list[int] = (2 * self.halves // self.stride).tolist()
        return ends


@dataclass(frozen=True)
class Tables:
    """The shipped tables.

    Attributes:
        whole: Every residual, one model a table.
        parted: Even and odd residuals, two models a table.
        choice: Table of each (scale index, |fraction| in 1/8 bin), [scales, 5].
        prices: Cost of each symbol of all tables, one table after the other.
        middles: Where in prices residual 0 of each table is.
        reaches: Largest |residual| of each table.
        parity_prices: Cost of residuals being even and odd in each table, [tables, 2].
    """

    whole: Alphabets
    parted: Alphabets
    choice: NDArray[np.int16]
    prices: Integers
    middles: Integers
    reaches: Integers
    parity_prices: Integers

    def chosen(self, scales: Shorts, fraction: Shorts) -> NDArray[np.int16]:
        """The table of each bin by its scale index and its mean's fraction, any one shape."""
        return self.choice.ravel().take(scales * np.int16(self.choice.shape[1]) + np.abs(fraction))

    def costs(self, bins: Integers, means: Shorts, scales: Shorts) -> Integers:
        """What coding each bin costs, in 1/256 bit; all flat, of equal length."""
        coded = symbols_of(bins, means, scales, self)
        reach = self.reaches[coded.tables]
        outside = np.abs(coded.residuals) > reach
        at = self.middles[coded.tables] + np.where(outside, reach + 1, coded.residuals)
        return self.prices[at] + ESCAPE_COST * outside

    def parity_costs(self, means: Shorts, scales: Shorts) -> Integers:
        """What it costs a bin to be even and odd, in 1/256 bit, [2, N]; means and scales flat."""
        whole, fraction = split(means)
        costs = self.parity_prices[self.chosen(scales, fraction)]
        return np.where(whole & 1, costs[:, ::-1].T, costs.T)


def make_tables(
    frequencies: NDArray[np.uint32],
    starts: NDArray[np.int64],
    choice: NDArray[np.int16],
    prices: NDArray[np.int16],
    parity_prices: NDArray[np.int16],
) -> Tables:
    """Build the coder's models from integer frequencies.

    Args:
        frequencies: All tables one after the other; each adds up to 2**PRECISION_BITS, all at least 1.
        starts: Where each table starts, and the end.
        choice: As in Tables.
        prices: Cost of each symbol in 1/256 bit, in the order of the frequencies.
        parity_prices: As in Tables.
    """
    each = [frequencies[first:last].astype(np.int64) for first, last in pairwise(starts)]
    halves = [len(own) // 2 - 1 for own in each]
    parts = [part_of(own, parity) for own in each for parity in (0, 1)]
    parted_halves = [half - (half + parity) % 2 for half in halves for parity in (0, 1)]
    whole, parted = _alphabets(each, halves, 1), _alphabets(parts, parted_halves, 2)
    reaches = np.array(halves, np.int32)
    middles = starts[:-1].astype(np.int32) + reaches
    costs, parity_costs = prices.astype(np.int32), parity_prices.astype(np.int32)
    return Tables(whole, parted, choice, costs, middles, reaches, parity_costs)


def _alphabets(frequencies: list[NDArray[np.int64]], halves: list[int], stride: int) -> Alphabets:
    return Alphabets(_models(frequencies), np.array(halves, np.int32), stride)


def _models(frequencies: list[NDArray[np.int64]]) -> tuple[object, ...]:
    """The coder gives each symbol one unit more than asked, so that none is impossible; integers stay exact."""
    asked = (own.astype(np.float64) - 1 for own in frequencies)
    return tuple(constriction.stream.model.Categorical(own, perfect=False) for own in asked)


def left_of(frequencies: NDArray[np.int64], parity: int) -> NDArray[np.int64]:
    """Frequencies of a table's residuals of a parity, and of its escape."""
    half = len(frequencies) // 2 - 1
    return np.append(frequencies[(half + parity) % 2 : -1 : 2], frequencies[-1])


def part_of(frequencies: NDArray[np.int64], parity: int) -> NDArray[np.int64]:
    """Frequencies of one table if only residuals of a parity and the escape are possible.

    Each is scaled to the new sum and rounded down, but not to 0; the largest, the first of them, takes what is missing.
    """
    left = left_of(frequencies, parity)
    scaled: NDArray[np.int64] = np.maximum((left << PRECISION_BITS) // left.sum(), 1)
    scaled[scaled.argmax()] += (1 << PRECISION_BITS) - scaled.sum()
    return scaled


def make_table_sets(
    frequencies: NDArray[np.uint32],
    starts: NDArray[np.int64],
    choices: NDArray[np.int16],
    prices: NDArray[np.int16],
    parity_prices: NDArray[np.int16],
) -> tuple[Tables, ...]:
    """The same tables seen through several choices, [sets, scales, 5]; the rest as in `make_tables`."""
    first = make_tables(frequencies, starts, choices[0], prices, parity_prices)
    return tuple(replace(first, choice=choice) for choice in choices)


def split(means: Shorts) -> tuple[Integers, Shorts]:
    """Means -> whole part, fraction in 1/8 bin, -4 ... 3."""
    whole = (means + 4) >> 3
    return whole.astype(np.int32), means - 8 * whole


def symbols_of(bins: Integers, means: Shorts, scales: Shorts, tables: Tables) -> Symbols:
    """Bins with their means (1/8 bin) and scale indices -> what is coded; all flat, of equal length."""
    whole, fraction = split(means)
    residuals = bins - whole
    residuals = np.where(fraction < 0, -residuals, residuals)
    return Symbols(tables.chosen(scales, fraction), residuals)


def alike(count: int, scale: int) -> tuple[Shorts, Shorts]:
    """Means of 0 and one scale index, so many of each: how numbers are coded that no prior foretells."""
    return np.zeros(count, np.int16), np.full(count, scale, np.int16)
