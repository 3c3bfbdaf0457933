"""Chroma planes that were interpolated from a quarter of their samples <-> those samples.

Most JPEG and WebP files, and Photo CDs, keep one of two samples of chroma along either axis, and their decoders put in
those between: each is a rounded weighted sum of the nearest kept ones. What was kept is found from the result by
undoing the weights, rounding, and then moving kept samples up or down as long as interpolated ones come nearer.

Sources: libjpeg's "fancy" upsampling, libwebp's, which differs in its rounding, and that of the 24 Kodak pictures,
which was found from them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Bytes8, Integers, Number

ORIENTATIONS = 8
"""Ways to turn and mirror a picture: since its chroma was interpolated it may have been."""
SMALLEST = 16
"""Least height and width of planes that can tell."""
WINDOW = 96
"""Side of the part of a plane that is tried first, for each orientation."""
WRONG, FEW_WRONG = 8, 32
"""If more than one in so many interpolated samples comes out wrong there, the plane was not made this way; if less than
one in so many, no other orientation is tried."""
Round = tuple[int, int]
"""Side of the blocks of kept samples that are moved together, and how far from wrong samples they may lie."""
ROUNDS: tuple[Round, ...] = ((1, 0), (2, 0), (1, 0), (2, 1), (1, 0))
FIRST_ROUNDS: tuple[Round, ...] = ((1, 0), (1, 0))
"""What is done one after the other: to a plane, and to try orientations."""
BAND, AROUND = 512, 32
"""Rows of a plane that are worked on together, and how many of those around they are made of; even numbers."""
ANYTHING = np.int32(2**13)
"""No sum is as far from 0."""
BLOCKS = 128
"""Blocks that are looked at together."""
UNDOING_STEPS, UNDOING_SHARE = 10, 1.6
"""How the weights are undone: so many steps that each take so much of what is left."""


@dataclass(frozen=True)
class Interpolation:
    """How samples between kept ones are made.

    Attributes:
        weights: Along an axis, what kept sample i adds to samples 2 i - 1, 2 i, 2 i + 1 and 2 i + 2. Beyond an end the
            last one is repeated.
        bits: Weights of both axes together add up to 2**bits.
        rounding: What is added before these bits are dropped, in even and in odd columns.
    """

    weights: tuple[int, int, int, int]
    bits: int
    rounding: tuple[int, int]

    def _axis(self, kept: Integers, length: int) -> Integers:
        """Along the last axis, not divided."""
        before, own, odd, after = self.weights
        result = np.empty((*kept.shape[:-1], 2 * kept.shape[-1]), np.int32)
        result[..., ::2] = own * kept
        result[..., 1::2] = odd * kept
        result[..., 2::2] += after * kept[..., :-1]
        result[..., 0] += after * kept[..., 0]
        result[..., 1:-1:2] += before * kept[..., 1:]
        result[..., -1] += before * kept[..., -1]
        return result[..., :length]

    def sums(self, kept: Integers, size: tuple[int, int]) -> Integers:
        """Weighted sums, [H, W], before they are rounded; kept: [ceil(H / 2), ceil(W / 2)]."""
        rows = self._axis(np.ascontiguousarray(kept.T), size[0])
        return self._axis(np.ascontiguousarray(rows.T), size[1])

    def _added(self, size: tuple[int, int]) -> Integers:
        return np.resize(np.array(self.rounding, np.int32), size[1])

    def whole(self, kept: Bytes8, size: tuple[int, int]) -> Bytes8:
        """The plane, [H, W], that kept samples, 0 ... 255, make."""
        result = np.empty(size, np.uint8)
        for band, around in _bands(size[0]):
            rows = slice(around.start // 2, -(-around.stop // 2))
            sums = self.sums(kept[rows].astype(np.int32), (around.stop - around.start, size[1]))[_within(band, around)]
            result[band] = (sums + self._added(size)) >> self.bits
        return result

    def kept(self, plane: Bytes8, sure: NDArray[np.bool_], rounds: Sequence[Round] = ROUNDS) -> Bytes8:
        """The samples, [ceil(H / 2), ceil(W / 2)], that make a plane, [H, W], or come near it where it is sure.

        rounds: What is done one after the other.
        """
        height, width = plane.shape
        result = np.empty((-(-height // 2), -(-width // 2)), np.uint8)
        for band, around in _bands(height):
            found = self._kept(plane[around].astype(np.int32), sure[around], rounds)
            rows = slice(band.start // 2, -(-band.stop // 2))
            result[rows] = found[_within(rows, slice(around.start // 2, around.stop))]
        return result

    def _kept(self, plane: Integers, sure: NDArray[np.bool_], rounds: Sequence[Round]) -> Integers:
        # A sum is right between these.
        lowest = (plane << self.bits) - self._added((plane.shape[0], plane.shape[1]))
        highest = lowest + (1 << self.bits) - 1
        lowest, highest = np.where(sure, lowest, -ANYTHING), np.where(sure, highest, ANYTHING)
        search = _Search(self, self._estimated(plane), lowest, highest)
        for side, spread in rounds:
            search.improve(side, spread)
        return search.kept

    def _estimated(self, plane: Integers) -> Integers:
        if not self.weights[3]:  # kept samples are there as they were
            return np.ascontiguousarray(plane[::2, ::2])
        rows, columns = (side % 2 for side in plane.shape)
        even = np.pad(plane, ((0, rows), (0, columns)), "edge").astype(np.float32)
        wanted = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / np.float32(4)
        found: NDArray[np.float32] = wanted
        for _ in range(UNDOING_STEPS):
            found = found + np.float32(UNDOING_SHARE) * (wanted - _smoothed(_smoothed(found).T).T)
        return np.clip(np.rint(found), 0, 255).astype(np.int32)


def _bands(height: int) -> Iterator[tuple[slice, slice]]:
    """Rows that are worked on together, and these with what is around them; both begin at even ones."""
    for top in range(0, height, BAND):
        bottom = min(top + BAND, height)
        yield slice(top, bottom), slice(max(top - AROUND, 0), min(bottom + AROUND, height))


def _within(rows: slice, around: slice) -> slice:
    return slice(rows.start - around.start, rows.stop - around.start)


def _smoothed(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of pairs of interpolated samples along the last axis, by the kept ones, weights 1, 3, 3, 1."""
    padded = np.pad(values, ((0, 0), (1, 1)), "edge")
    result: NDArray[np.float32] = (padded[:, :-2] + 6 * values + padded[:, 2:]) / np.float32(8)
    return result


class _Search:
    """Kept samples that are moved by one where sums then lie less far from where they are right.

    Args:
        interpolation: What makes sums.
        kept: To begin with.
        lowest: Least sum that is right, [H, W].
        highest: Largest one.
    """

    def __init__(self, interpolation: Interpolation, kept: Integers, lowest: Integers, highest: Integers) -> None:
        self.kept, self._lowest, self._highest = kept, lowest, highest
        self._sums = interpolation.sums(kept, (lowest.shape[0], lowest.shape[1]))
        sides = zip(kept.shape, lowest.shape, strict=True)
        self._rows, self._columns = (_reach(interpolation.weights, *own) for own in sides)

    def improve(self, side: int, spread: int) -> None:
        """Look at the blocks of side x side kept samples that wrong sums are of, and at those up to `spread` away."""
        wrong = np.argwhere((self._sums < self._lowest) | (self._sums > self._highest))
        # Sample 2 i is made of kept ones i - 1 and i, sample 2 i + 1 of i and i + 1.
        first = (wrong - 1) // 2 if side > 1 else np.concatenate([wrong // 2, (wrong - 1) // 2, (wrong + 1) // 2])
        first = np.concatenate([first + away for away in itertools.product(range(-spread, spread + 1), repeat=2)])
        last = np.array(self.kept.shape) - side
        numbers = np.unique(np.clip(first, 0, last) @ np.array([last[1] + 1, 1]))
        blocks = np.stack(np.divmod(numbers, last[1] + 1), 1)
        apart = side + 2  # sums of blocks so far apart have nothing in common
        for row in range(apart):
            for column in range(apart):
                chosen = blocks[(blocks[:, 0] % apart == row) & (blocks[:, 1] % apart == column)]
                for alike in self._alike(chosen, side):
                    for begin in range(0, len(alike), BLOCKS):
                        self._move(alike[begin : begin + BLOCKS], side)

    def _alike(self, chosen: NDArray[np.intp], side: int) -> Iterator[NDArray[np.intp]]:
        """Blocks whose samples have the same weights: those at either end of an axis, and those between."""
        ends = (chosen == 0) + 2 * (chosen == np.array(self.kept.shape) - side)
        kinds = ends[:, 0] + 4 * ends[:, 1]
        for kind in np.unique(kinds):
            yield chosen[kinds == kind]

    def _move(self, chosen: NDArray[np.intp], side: int) -> None:
        steps = np.array(list(itertools.product((0, 1, -1), repeat=side * side)), np.float32).reshape(-1, side, side)
        (rows, of_rows), (columns, of_columns) = (
            _window(own, first, side) for own, first in zip((self._rows, self._columns), chosen.T, strict=True)
        )
        here = rows[:, :, None], columns[:, None, :]
        sums, lowest, highest = (own[here].astype(np.int16) for own in (self._sums, self._lowest, self._highest))
        added = (of_rows.T @ steps @ of_columns).astype(np.int16)
        own = sums[:, None] + added
        off = np.maximum(np.maximum(lowest[:, None] - own, own - highest[:, None]), 0).sum((2, 3), dtype=np.int32)
        places = chosen[:, 0, None, None] + np.arange(side)[:, None], chosen[:, 1, None, None] + np.arange(side)
        values = self.kept[places][:, None] + steps.astype(np.int32)
        off[((values < 0) | (values > 255)).any((2, 3))] = np.iinfo(np.int32).max
        best = off.argmin(1)
        moving = np.flatnonzero(best)
        self.kept[tuple(own[moving] for own in places)] = values[moving, best[moving]]
        cells = np.broadcast_arrays(here[0][moving], here[1][moving])
        np.add.at(self._sums, (cells[0], cells[1]), added[best[moving]].astype(np.int32))


Reach = tuple[NDArray[np.intp], Integers]
"""Along an axis: the four samples that each kept one is part of, and its weights there; [kept, 4] each."""


def _reach(weights: tuple[int, int, int, int], kept: int, length: int) -> Reach:
    """Where there is no sample the weight is 0, and the place any."""
    places = 2 * np.arange(kept)[:, None] + np.arange(-1, 3)
    there = (places >= 0) & (places < length)
    own = np.where(there, np.array(weights, np.int32), 0).astype(np.int32)
    own[0, 1] += weights[3]  # repeated before the first
    if length == 2 * kept:
        own[-1, 2] += weights[0]  # and behind the last
    return np.clip(places, 0, length - 1), own


def _window(reach: Reach, first: NDArray[np.intp], side: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Samples that some blocks are part of, [N, 2 side + 2], and the weights of each row there, [side, 2 side + 2]."""
    places, weights = reach
    found = np.empty((len(first), 2 * side + 2), np.intp)
    own = np.zeros((side, 2 * side + 2), np.float32)
    for index in range(side):
        found[:, 2 * index : 2 * index + 4] = places[first + index]
        own[index, 2 * index : 2 * index + 4] = weights[first[0] + index]
    return found, own


def turned(plane: NDArray[Number], orientation: int) -> NDArray[Number]:
    """A plane in one of its orientations; 0: as it is."""
    return np.ascontiguousarray(np.rot90(plane[:, ::-1] if orientation >= 4 else plane, orientation % 4))


def turned_back(plane: NDArray[Number], orientation: int) -> NDArray[Number]:
    """The reverse of `turned`."""
    own = np.rot90(plane, -(orientation % 4))
    return np.ascontiguousarray(own[:, ::-1] if orientation >= 4 else own)


def orientation_of(plane: Bytes8, sure: NDArray[np.bool_], interpolation: Interpolation) -> int | None:
    """The orientation in which a plane, [H, W], was interpolated; None if there is none."""
    if min(plane.shape) < SMALLEST:
        return None
    best, fewest = None, 1 / WRONG
    for orientation in range(ORIENTATIONS):
        part = _liveliest(turned(plane, orientation), turned(sure, orientation))
        own, known = turned(plane, orientation)[part], turned(sure, orientation)[part]
        made = interpolation.whole(interpolation.kept(own, known, FIRST_ROUNDS), (own.shape[0], own.shape[1]))
        wrong = int(np.count_nonzero((made != own) & known)) / max(1, int(np.count_nonzero(known)))
        if wrong < fewest:
            best, fewest = orientation, wrong
        if fewest * FEW_WRONG < 1:
            break
    return best


def _liveliest(plane: Bytes8, sure: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The part of WINDOW x WINDOW, at even places, where a plane changes most as far as it is sure."""
    changes = np.abs(np.diff(plane.astype(np.int16), axis=1)) * (sure[:, 1:] & sure[:, :-1])
    tops, lefts = (range(0, max(1, side - WINDOW + 1), WINDOW // 2) for side in plane.shape)
    parts = [(slice(top, top + WINDOW), slice(left, left + WINDOW)) for top in tops for left in lefts]
    return max(parts, key=lambda part: int(changes[part].sum()))
