"""Bins <-> words: a range coder with shipped integer tables.

Every bin comes with a mean (in 1/8 bin) and a scale index, which choose its table (`coder_tables`). Bins that share a
table are coded in one call, in the order of a stable sort both sides repeat. Values outside a table follow as
Exp-Golomb bits. Bins whose parity follows from others' (`trellis`) come last.

Source: constriction (R. Bamler, 2022), range coder of 32-bit words, probabilities of 24 bits.
"""

from __future__ import annotations

import constriction
import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Integers, Shorts
from service.codec.coder_tables import Alphabets, Symbols, Tables, split
from service.codec.errors import CorruptStreamError
from service.codec.trellis import Trellis

WORD, STATE_BITS = ">u4", 64
"""How the coder's words are written, and how much it has not yet written."""
BIN_LIMIT = 2**20
"""Largest |value - mean| an escape can say."""
NO_CHECKS = np.empty(0, np.intp)
"""Nothing but free bins."""
Groups = list[tuple[int, int, int]]
"""A table, and where the bins it codes begin and end."""
_BITS = constriction.stream.model.Uniform(2)


def _groups(chosen: NDArray[np.int16], count: int) -> tuple[NDArray[np.int64], Groups]:
    order = np.argsort(chosen, kind="stable")
    sizes = np.bincount(chosen, minlength=count)
    used = np.flatnonzero(sizes)
    ends = np.cumsum(sizes[used]).tolist()
    return order, list(zip(used.tolist(), [0, *ends], ends, strict=False))


def _halves(groups: Groups, alphabets: Alphabets) -> Integers:
    """Largest residual of the table of each bin, in the order of the groups."""
    tables, sizes = [own[0] for own in groups], [last - first for _, first, last in groups]
    return np.repeat(alphabets.halves[tables], sizes)


class Encoder:
    """Collects symbols and gives the words of one section."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._coder = constriction.stream.queue.RangeEncoder()

    def add(self, symbols: Symbols, checks: NDArray[np.intp] = NO_CHECKS) -> None:
        """Code the bins of one pass; checks: places of those whose parity follows from the others'."""
        if not checks.size:
            self._code(symbols.tables, symbols.residuals, self._tables.whole)
            return
        free, residuals = without(checks, len(symbols.tables)), symbols.residuals[checks]
        self._code(symbols.tables[free], symbols.residuals[free], self._tables.whole)
        parted = (2 * symbols.tables[checks] + (residuals & 1)).astype(np.int16)
        self._code(parted, residuals, self._tables.parted)

    def _code(self, tables: NDArray[np.int16], residuals: Integers, alphabets: Alphabets) -> None:
        order, groups = _groups(tables, len(alphabets.models))
        ordered, halves, stride = residuals[order], _halves(groups, alphabets), alphabets.stride
        outside = np.abs(ordered) > halves
        index = (np.where(outside, halves + stride, ordered) + halves) // stride
        escapes, coded = np.flatnonzero(outside).tolist(), 0
        for table, first, last in groups:
            self._coder.encode(index[first:last], alphabets.models[table])
            while coded < len(escapes) and escapes[coded] < last:
                self._escape(int(ordered[escapes[coded]]), int(alphabets.halves[table]), stride)
                coded += 1

    def _escape(self, value: int, half: int, stride: int) -> None:
        number = (abs(value) - half) // stride * 2 - 1 + (value < 0)
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

    def take(self, means: Shorts, scales: Shorts, trellis: Trellis | None = None) -> Integers:
        """Decode the bins of one pass from their means (1/8 bin) and scale indices, flat, of equal length.

        Args:
            means: As in `symbols_of`.
            scales: As there.
            trellis: Foretells the parities of its checks, which come last; none: no bin's is.

        Raises:
            CorruptStreamError: The words cannot have been written by an Encoder.
        """
        whole, fraction = split(means)
        chosen = self._tables.chosen(scales, fraction)
        if trellis is None or not trellis.checks.size:
            return _bins(self._decoded(chosen, self._tables.whole), whole, fraction)
        checks, bins = trellis.checks, np.zeros(len(means), np.int32)
        free = without(checks, len(means))
        bins[free] = _bins(self._decoded(chosen[free], self._tables.whole), whole[free], fraction[free])
        parted = (2 * chosen[checks] + (trellis.parities(bins) ^ whole[checks] & 1)).astype(np.int16)
        bins[checks] = _bins(self._decoded(parted, self._tables.parted), whole[checks], fraction[checks])
        return bins

    def _decoded(self, tables: NDArray[np.int16], alphabets: Alphabets) -> Integers:
        """Residuals of so many symbols."""
        order, groups = _groups(tables, len(alphabets.models))
        ordered, stride, escapes = np.empty(len(tables), np.int32), alphabets.stride, []
        decode, models, ends = self._coder.decode, alphabets.models, alphabets.ends
        try:
            for table, first, last in groups:
                part = decode(models[table], last - first)
                ordered[first:last] = part
                if part[part.argmax()] > ends[table]:  # there are thousands of groups and next to no escapes
                    half = int(alphabets.halves[table])
                    escapes += [
                        (first + own, self._escaped(half, stride)) for own in np.flatnonzero(part > ends[table])
                    ]
        except (AssertionError, ValueError) as error:
            raise CorruptStreamError("the coded words are invalid; the stream is damaged") from error
        ordered *= stride
        ordered -= _halves(groups, alphabets)
        for position, value in escapes:
            ordered[position] = value
        residuals = np.empty_like(ordered)
        residuals[order] = ordered
        return residuals

    def _escaped(self, half: int, stride: int) -> int:
        zeros = 0
        while not self._bit():
            zeros += 1
            if zeros > BIN_LIMIT.bit_length() + 2:
                raise CorruptStreamError("an escape is too long; the stream is damaged")
        number = 1
        for _ in range(zeros):
            number = number * 2 + self._bit()
        number -= 1
        magnitude = (number // 2 + 1) * stride + half
        return -magnitude if number % 2 else magnitude

    def _bit(self) -> int:
        return int(self._coder.decode(_BITS, 1)[0])


def without(places: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Which of so many there are besides some."""
    rest = np.ones(count, np.bool_)
    rest[places] = False
    return np.flatnonzero(rest)


def _bins(residuals: Integers, whole: Integers, fraction: Shorts) -> Integers:
    return np.where(fraction < 0, -residuals, residuals) + whole
