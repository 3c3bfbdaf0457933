"""Bins <-> words: a range coder with shipped integer tables.

Every bin comes with a mean (in 1/8 bin) and a scale index. The mean's whole part is subtracted, its fraction and
the scale index choose a table; a negative fraction flips the sign. Bins that share a table are coded in one call,
in the order of a stable sort both sides repeat. Values outside a table follow as Exp-Golomb bits.

Source: constriction (R. Bamler, 2022), range coder of 32-bit words, probabilities of 24 bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import constriction
import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Integers, Shorts
from service.codec.errors import CorruptStreamError

PRECISION_BITS = 24
"""Every table's frequencies add up to 2**PRECISION_BITS."""
WORD, STATE_BITS = ">u4", 64
"""How the coder's words are written, and how much it has not yet written."""
BIN_LIMIT = 2**20
"""Largest |value - mean| an escape can say."""
COST_UNIT = 256
"""Costs are in 1/COST_UNIT bit."""
ESCAPE_COST = 8 * COST_UNIT
"""Rough price of the bits that follow an escape; only the encoder's choice of bins reads it."""
_BITS = constriction.stream.model.Uniform(2)


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
class Tables:
    """The shipped tables.

    Attributes:
        models: One categorical model a table, over residuals -half ... half and, last, the escape.
        halves: Largest |residual| of each table.
        choice: Table of each (scale index, |fraction| in 1/8 bin), [scales, 5].
        prices: Cost of each symbol of all tables, one table after the other.
        middles: Where in prices residual 0 of each table is.
        reaches: The halves once more, as an array.
    """

    models: tuple[object, ...]
    halves: tuple[int, ...]
    choice: NDArray[np.int16]
    prices: Integers
    middles: Integers
    reaches: Integers

    def costs(self, bins: Integers, means: Shorts, scales: Shorts) -> Integers:
        """What coding each bin costs, in 1/256 bit; all flat, of equal length."""
        coded = symbols_of(bins, means, scales, self)
        reach = self.reaches[coded.tables]
        outside = np.abs(coded.residuals) > reach
        at = self.middles[coded.tables] + np.where(outside, reach + 1, coded.residuals)
        return self.prices[at] + ESCAPE_COST * outside


def make_tables(
    frequencies: NDArray[np.uint32], starts: NDArray[np.int64], choice: NDArray[np.int16], prices: NDArray[np.int16]
) -> Tables:
    """Build the coder's models from integer frequencies.

    Args:
        frequencies: All tables one after the other; each adds up to 2**PRECISION_BITS, all at least 1.
        starts: Where each table starts, and the end.
        choice: As in Tables.
        prices: Cost of each symbol in 1/256 bit, in the order of the frequencies.
    """
    models, halves = [], []
    for first, last in pairwise(starts):
        # The coder gives each symbol one unit more than asked, so that none is impossible; integers stay exact.
        asked = frequencies[first:last].astype(np.float64) - 1
        models.append(constriction.stream.model.Categorical(asked, perfect=False))
        halves.append(int(last - first - 2) // 2)
    reaches = np.array(halves, np.int32)
    middles = starts[:-1].astype(np.int32) + reaches
    return Tables(tuple(models), tuple(halves), choice, prices.astype(np.int32), middles, reaches)


def make_table_sets(
    frequencies: NDArray[np.uint32], starts: NDArray[np.int64], choices: NDArray[np.int16], prices: NDArray[np.int16]
) -> tuple[Tables, ...]:
    """The same tables seen through several choices, [sets, scales, 5]; the rest as in `make_tables`."""
    first = make_tables(frequencies, starts, choices[0], prices)
    return tuple(replace(first, choice=choice) for choice in choices)


def _split(means: Shorts) -> tuple[Integers, Shorts]:
    whole = (means + 4) >> 3
    return whole.astype(np.int32), means - 8 * whole


def symbols_of(bins: Integers, means: Shorts, scales: Shorts, tables: Tables) -> Symbols:
    """Bins with their means (1/8 bin) and scale indices -> what is coded; all flat, of equal length."""
    whole, fraction = _split(means)
    residuals = bins - whole
    residuals = np.where(fraction < 0, -residuals, residuals)
    return Symbols(tables.choice[scales, np.abs(fraction)], residuals)


def alike(count: int, scale: int) -> tuple[Shorts, Shorts]:
    """Means of 0 and one scale index, so many of each: how numbers are coded that no prior foretells."""
    return np.zeros(count, np.int16), np.full(count, scale, np.int16)


def _groups(chosen: NDArray[np.int16], count: int) -> tuple[NDArray[np.int64], list[tuple[int, int, int]]]:
    order = np.argsort(chosen, kind="stable")
    sizes = np.bincount(chosen, minlength=count)
    ends = np.cumsum(sizes)
    return order, [(int(t), int(ends[t] - sizes[t]), int(ends[t])) for t in np.nonzero(sizes)[0]]


class Encoder:
    """Collects symbols and gives the words of one section.

    Attributes:
        calibrates: Whether what the prior says is corrected (calibration.py); not where tables are counted.
    """

    calibrates = True

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._coder = constriction.stream.queue.RangeEncoder()

    def add(self, symbols: Symbols) -> None:
        """Code the bins of one pass."""
        order, groups = _groups(symbols.tables, len(self._tables.models))
        ordered = symbols.residuals[order]
        for table, first, last in groups:
            half, part = self._tables.halves[table], ordered[first:last]
            inside = np.abs(part) <= half
            index = np.where(inside, part + half, 2 * half + 1).astype(np.int32)
            self._coder.encode(index, self._tables.models[table])
            if not inside.all():
                for value in part[~inside]:
                    self._escape(int(value), half)

    def _escape(self, value: int, half: int) -> None:
        number = (abs(value) - half - 1) * 2 + (value < 0) + 1
        bits = number.bit_length()
        coded = [0] * (bits - 1) + [(number >> i) & 1 for i in reversed(range(bits))]
        self._coder.encode(np.array(coded, np.int32), _BITS)

    def words(self) -> bytes:
        """The section's bytes: 32-bit words, big-endian, cut to the fewest bytes that zeros complete to the same."""
        words, (position, (lower, extent)) = self._coder.get_compressed(), self._coder.pos()
        tail = shortest(lower, extent)
        if tail is not None:
            words = words[:position]
        return bytes(words.astype(WORD).tobytes() + (tail or b"")).rstrip(b"\0")


def shortest(lower: int, extent: int) -> bytes | None:
    """The fewest bytes that, with zeros behind them, say a 64-bit number in lower ... lower + extent - 1.

    None if that range goes beyond 64 bits: then a carry into earlier words is still to be decided.
    """
    if lower + extent > 1 << STATE_BITS:
        return None
    for kept in range(STATE_BITS // 8 + 1):
        dropped = STATE_BITS - 8 * kept
        number = -(-lower >> dropped)
        if number << dropped < lower + extent:
            return number.to_bytes(kept, "big")
    raise AssertionError("eight bytes say any number")


class Decoder:
    """Gives back what an Encoder was given, in the same order."""

    def __init__(self, words: bytes, tables: Tables) -> None:
        self._tables = tables
        whole = words + bytes(-len(words) % np.dtype(WORD).itemsize)
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(whole, WORD).astype(np.uint32))

    def copy(self) -> Decoder:
        """A decoder that goes on from here while this one stays."""
        twin = Decoder(b"", self._tables)
        twin._coder = self._coder.clone()
        return twin

    def take(self, means: Shorts, scales: Shorts) -> Integers:
        """Decode the bins of one pass from their means (1/8 bin) and scale indices, flat, of equal length.

        Raises:
            CorruptStreamError: The words cannot have been written by an Encoder.
        """
        whole, fraction = _split(means)
        chosen = self._tables.choice[scales, np.abs(fraction)]
        order, groups = _groups(chosen, len(self._tables.models))
        ordered = np.empty(len(chosen), np.int32)
        try:
            for table, first, last in groups:
                half = self._tables.halves[table]
                part = self._coder.decode(self._tables.models[table], last - first) - half
                for position in np.nonzero(part > half)[0]:
                    part[position] = self._escaped(half)
                ordered[first:last] = part
        except (AssertionError, ValueError) as error:
            raise CorruptStreamError("the coded words are invalid; the stream is damaged") from error
        residuals = np.empty_like(ordered)
        residuals[order] = ordered
        return np.where(fraction < 0, -residuals, residuals) + whole

    def _escaped(self, half: int) -> int:
        zeros = 0
        while not self._bit():
            zeros += 1
            if zeros > BIN_LIMIT.bit_length() + 2:
                raise CorruptStreamError("an escape is too long; the stream is damaged")
        number = 1
        for _ in range(zeros):
            number = number * 2 + self._bit()
        number -= 1
        magnitude = number // 2 + half + 1
        return -magnitude if number % 2 else magnitude

    def _bit(self) -> int:
        return int(self._coder.decode(_BITS, 1)[0])
