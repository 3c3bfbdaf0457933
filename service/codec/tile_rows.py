"""The states of a picture of several tiles, a row of tiles at a time, from the coarsest to the finest.

Each level runs one row of tiles ahead of the next finer one, whose inverse flow needs a few rows of its neighbours:
what is kept grows with a picture's width, not with its height.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from service.codec import lattice
from service.codec.arrays import Bytes8, Floats
from service.codec.lattice import Area, Tile
from service.codec.level_steps import Inverse
from service.codec.quantise import Sides
from service.codec.steps import Run

HALO = 8
"""Samples of a level's low-pass and details, on all sides, that decide what the flow makes of them, or more: 4 for the
lifting steps, 1 for the coupling net."""

Row = tuple[Floats, list[Bytes8 | None]]
"""A row of tiles of one state, [1, 3, h, W], and what the priors of its tiles' coarser level handed on."""
CodeTile = Callable[[int, int, Floats, "Bytes8 | None"], tuple[Floats, "Bytes8 | None"]]
"""Level, tile, its low-pass and its parent -> its details as the decoder has them, and what is handed on."""


class Rows:
    """The last rows of a state that grows downwards."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, Floats]] = []
        self._end = 0

    def append(self, rows: Floats) -> None:
        """Add rows, [1, C, h, W], below those there are."""
        self._kept.append((self._end, rows))
        self._end += rows.shape[2]

    def of(self, area: Area) -> Floats:
        """An area, [1, C, h, w]."""
        there = [
            (start, rows) for start, rows in self._kept if start < area.bottom and start + rows.shape[2] > area.top
        ]
        cut = [
            rows[:, :, max(area.top - start, 0) : area.bottom - start, area.left : area.right] for start, rows in there
        ]
        return np.concatenate(cut, 2)

    def forget(self, before: int) -> None:
        """Drop what lies above a row."""
        kept = [(start, rows) for start, rows in self._kept if start + rows.shape[2] > before]
        if kept and kept[0][0] < before:
            start, rows = kept[0]
            kept[0] = before, rows[:, :, before - start :].copy()
        self._kept = kept


@dataclass(frozen=True)
class Grid:
    """The tiles of a picture, and the sizes of its states."""

    size: tuple[int, int]

    @functools.cached_property
    def tiles(self) -> list[Tile]:
        """All, row by row."""
        return lattice.tiles_of(*self.size)

    @functools.cached_property
    def rows(self) -> list[list[tuple[int, Tile]]]:
        """Numbers and tiles, row by row."""
        return [list(row) for _, row in groupby(enumerate(self.tiles), lambda numbered: numbered[1].top)]

    @functools.cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """Of the states: the picture's first, the coarsest low-pass last."""
        return lattice.sizes_of(*self.size)

    def inner(self, index: int) -> Sides:
        """Sides of a tile where the picture goes on."""
        area, (height, width) = self.tiles[index].area(0), self.size
        return area.top > 0, area.left > 0, area.bottom < height, area.right < width

    def tile_size(self, index: int, halvings: int) -> tuple[int, int]:
        """Height and width of a tile's part of a state."""
        area = self.tiles[index].area(halvings)
        return area.bottom - area.top, area.right - area.left

    @property
    def levels(self) -> int:
        """Of all tiles."""
        return len(self.sizes) - 1

    def band(self, row: int, halvings: int) -> Area:
        """What a row of tiles covers of a state."""
        first, last = self.rows[row][0][1].area(halvings), self.rows[row][-1][1].area(halvings)
        return Area(first.top, 0, first.bottom, last.right)


def finer_rows(
    grid: Grid, low: Floats, stop: int, code: CodeTile, unit: int, run: Run, inverted: bool = True
) -> Iterator[tuple[int, Floats]]:
    """Code all levels down to `stop` and give the state above it, a row of tiles at a time: where it lies, and what.

    Without `inverted` nothing is given.
    """
    bands = [grid.band(row, grid.levels) for row in range(len(grid.rows))]
    rows: Iterator[Row] = ((band.of(low), [None] * len(row)) for band, row in zip(bands, grid.rows, strict=True))
    for level in reversed(range(stop, grid.levels)):
        rows = _finer(grid, rows, level, code, unit, run, inverted or level > stop)
    for row, (state, _) in enumerate(rows):
        yield grid.band(row, stop).top, state


def _finer(
    grid: Grid, rows: Iterator[Row], level: int, code: CodeTile, unit: int, run: Run, inverted: bool
) -> Iterator[Row]:
    """Code one level, row by row of the low-pass below it, and give the rows of the state above it, one row later."""
    lows, details, parents = Rows(), Rows(), []
    for number, (row, (low, handed)) in enumerate(zip(grid.rows, rows, strict=True)):
        band, coded = grid.band(number, level + 1), np.empty((1, 9, *low.shape[2:]), np.float32)
        parents.append(list[Bytes8 | None]())
        for index, tile in row:
            area = tile.area(level + 1).within(band)
            area.of(coded)[:], handed_on = code(level, index, area.of(low), handed.pop(0))  # a tile's goes once used
            parents[-1].append(handed_on)
        if inverted:
            lows.append(low)
            details.append(coded)
        if inverted and number:
            yield _inverse(grid, number - 1, lows, details, level, unit, run), parents.pop(0)
    if inverted:
        yield _inverse(grid, len(grid.rows) - 1, lows, details, level, unit, run), parents.pop(0)


def _inverse(grid: Grid, row: int, lows: Rows, details: Rows, level: int, unit: int, run: Run) -> Floats:
    """The inverse flow of a level for one row of tiles; rows no later one needs are forgotten."""
    band = grid.band(row, level)
    state = np.empty((1, 3, band.bottom - band.top, band.right), np.float32)
    for _, tile in grid.rows[row]:
        around = tile.area(level + 1).grown(HALO, grid.sizes[level + 1])
        wide, own = around.doubled(grid.sizes[level]), tile.area(level)
        size = wide.bottom - wide.top, wide.right - wide.left
        step = Inverse(run.model, lows.of(around), details.of(around), level, unit, size)
        own.within(band).of(state)[:] = own.within(wide).of(run.step(step))
    for kept in (lows, details):
        kept.forget(grid.band(row, level + 1).bottom - HALO)
    return state
