"""Values at a few places, said one by one: places and bytes <-> a list of bits.

Distances from place to place, and values, are said in Rice codes: a number n as n >> k zeros and a one, and its k low
bits. 16 numbers share a k. Of a list come the ks first, then all zeros and ones, then all low bits.

Source: R. Rice and J. Plaunt, "Adaptive Variable-Length Coding for Efficient Compression of Spacecraft Television
Data", IEEE Trans. Commun. Technology 19(6), 1971.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Bytes8
from service.codec.errors import CorruptStreamError

FEWEST_PLACES = 16
"""One place in so many may be listed."""
COUNT_BYTES, SPARE_BYTES = 4, 64
"""Lists take at most a byte for each place there is, and a few more."""
ALIKE, K_BITS = 16, 4
"""So many numbers share a k, which takes so many bits."""
Listed = tuple[NDArray[np.intp], Bytes8]
"""Ascending places, [N], and values, [N, width]; of width 1 none is 0."""


def packed(lists: Sequence[Listed]) -> bytes:
    """Several lists, one after the other; nothing if all are empty."""
    if not any(len(places) for places, _ in lists):
        return b""
    heads, bits = [], []
    for places, values in lists:
        heads.append(len(places).to_bytes(COUNT_BYTES, "little"))
        bits += [_coded(np.diff(places, prepend=-1) - 1), _coded(_folded(values))]
    return b"".join(heads) + np.packbits(np.concatenate(bits)).tobytes()


def unpacked(data: bytes, widths: Sequence[int], places: int) -> list[Listed]:
    """The reverse of `packed`.

    Args:
        data: The lists.
        widths: Bytes of each list's values, 1 or more.
        places: How many places there are.

    Raises:
        CorruptStreamError: No encoder lists these.
    """
    if not data:
        return [(np.empty(0, np.intp), np.empty((0, width), np.uint8)) for width in widths]
    if len(data) > places + SPARE_BYTES:
        raise CorruptStreamError("the lists of values are too long; the stream is damaged")
    bits = _Bits(np.unpackbits(np.frombuffer(data, np.uint8)[COUNT_BYTES * len(widths) :]))
    result = []
    for index, width in enumerate(widths):
        count = int.from_bytes(data[index * COUNT_BYTES :][:COUNT_BYTES], "little")
        if count > places // FEWEST_PLACES:
            raise CorruptStreamError("a list of values is too long; the stream is damaged")
        gaps, folded = bits.numbers(count), bits.numbers(count * width)
        if (gaps >= places).any() or (folded > 255).any():
            raise CorruptStreamError("a list has impossible values; the stream is damaged")
        at = np.cumsum(gaps + 1) - 1
        if count and at[-1] >= places:
            raise CorruptStreamError("a list of values has impossible places; the stream is damaged")
        result.append((at.astype(np.intp), _unfolded(folded.reshape(count, width))))
    bits.end()
    return result


def _folded(values: Bytes8) -> NDArray[np.int64]:
    """Values as numbers: as they are, or, of width 1, 1, -1, 2, -2 ... as 0, 1, 2, 3 ..."""
    if values.shape[1] > 1:
        return values.astype(np.int64).ravel()
    signed = values.view(np.int8)[:, 0].astype(np.int64)
    return np.where(signed < 0, -2 * signed - 1, 2 * signed - 2)


def _unfolded(numbers: NDArray[np.int64]) -> Bytes8:
    if numbers.shape[1] > 1:
        return numbers.astype(np.uint8)
    return np.where(numbers & 1, -(numbers // 2) - 1, numbers // 2 + 1).astype(np.uint8)


def _coded(numbers: NDArray[np.int64]) -> Bytes8:
    """Bits, one a byte; each k is the one that takes the fewest."""
    if not len(numbers):
        return np.empty(0, np.uint8)
    starts = np.arange(0, len(numbers), ALIKE)
    ks = np.arange(2**K_BITS)
    sizes = np.add.reduceat((numbers >> ks[:, None]) + 1 + ks[:, None], starts, axis=1)
    chosen = sizes.argmin(0)
    k = np.repeat(chosen, ALIKE)[: len(numbers)]
    ends = np.cumsum((numbers >> k) + 1)
    unary = np.zeros(ends[-1], np.uint8)
    unary[ends - 1] = 1
    return np.concatenate([_bits_of(chosen, np.full_like(chosen, K_BITS)), unary, _bits_of(numbers, k)])


def _weights(k: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Of k bits of each number, highest first: whose they are, and how many come behind them."""
    owners = np.repeat(np.arange(len(k)), k)
    return owners, np.cumsum(k)[owners] - 1 - np.arange(len(owners))


def _bits_of(numbers: NDArray[np.int64], k: NDArray[np.int64]) -> Bytes8:
    owners, behind = _weights(k)
    return (numbers[owners] >> behind & 1).astype(np.uint8)


class _Bits:
    """Reads forward through bits, one a byte."""

    def __init__(self, bits: Bytes8) -> None:
        self._bits, self._position = bits, 0

    def _take(self, count: int) -> Bytes8:
        self._position += count
        if self._position > len(self._bits):
            raise CorruptStreamError("a list of values is cut; the stream is damaged")
        return self._bits[self._position - count : self._position]

    def _fixed(self, k: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of k bits each."""
        owners, behind = _weights(k)
        values = self._take(len(owners)).astype(np.int64) << behind
        return np.bincount(owners, values, len(k)).astype(np.int64)

    def numbers(self, count: int) -> NDArray[np.int64]:
        chosen = self._fixed(np.full(-(-count // ALIKE), K_BITS))
        k = np.repeat(chosen, ALIKE)[:count]
        ones = self._ones(count)
        self._take(int(ones[-1]) + 1 if count else 0)
        high = np.diff(ones, prepend=-1) - 1
        numbers: NDArray[np.int64] = (high << k) + self._fixed(k)
        return numbers

    def _ones(self, count: int) -> NDArray[np.intp]:
        """How far away the next so many ones are; only as much is looked through as has them."""
        rest = self._bits[self._position :]
        width = 4 * count
        while len(ones := np.flatnonzero(rest[:width])) < count:
            if width >= len(rest):
                raise CorruptStreamError("a list of values is cut; the stream is damaged")
            width *= 4
        return ones[:count]

    def end(self) -> None:
        """Nothing but zeros that fill a byte may be left."""
        left = self._bits[self._position :]
        if len(left) >= 8 or left.any():
            raise CorruptStreamError("there is more than the lists of values; the stream is damaged")
