"""tile_rows: states grow downwards, a row of tiles at a time."""

from __future__ import annotations

import numpy as np

from service.codec import lattice
from service.codec.lattice import Area
from service.codec.tile_rows import Grid, Rows


def test_rows_are_found_across_pieces_and_forgotten():
    whole = np.arange(2 * 20 * 6, dtype=np.float32).reshape(1, 2, 20, 6)
    rows = Rows()
    for first, last in ((0, 8), (8, 16), (16, 20)):
        rows.append(whole[:, :, first:last])
    area = Area(5, 1, 18, 4)
    np.testing.assert_array_equal(rows.of(area), area.of(whole))
    rows.forget(9)
    np.testing.assert_array_equal(rows.of(Area(0, 0, 20, 6)), whole[:, :, 9:])
    assert not np.shares_memory(rows._kept[0][1], whole)  # nor is the rest of the piece kept in memory


def test_bands_cover_a_state_row_by_row():
    grid = Grid((2 * lattice.TILE + 5, lattice.TILE + 30))
    assert [len(row) for row in grid.rows] == [2, 2, 2]
    for halvings, (height, width) in enumerate(grid.sizes):
        bands = [grid.band(row, halvings) for row in range(3)]
        assert [(band.left, band.right) for band in bands] == [(0, width)] * 3
        assert [band.top for band in bands] == [0, *(band.bottom for band in bands[:-1])]
        assert bands[-1].bottom == height
