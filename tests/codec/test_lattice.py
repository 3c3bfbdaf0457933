"""lattice: tiles cover a picture exactly once, levels follow from size, planes turn back into pixels."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.codec import lattice
from tests.codec.samples import pixels_of

SIDES = st.integers(1, 3 * lattice.TILE + 5)


@given(height=SIDES, width=SIDES)
def test_tiles_cover_every_pixel_once_in_row_order(height, width):
    tiles = lattice.tiles_of(height, width)
    assert sum(t.height * t.width for t in tiles) == height * width
    assert [(t.top, t.left) for t in tiles] == sorted({(t.top, t.left) for t in tiles})
    for tile in tiles:
        assert tile.top % lattice.TILE == tile.left % lattice.TILE == 0
        assert tile.height == min(lattice.TILE, height - tile.top)
        assert tile.width == min(lattice.TILE, width - tile.left)


def test_tile_borders_fall_on_whole_samples_of_every_level():
    assert lattice.TILE % 2**lattice.LEVELS == 0


@pytest.mark.parametrize(
    ("longest", "levels"), [(1, 0), (8, 0), (9, 1), (16, 1), (17, 2), (32, 2), (256, 5), (257, 6), (512, 6), (1024, 6)]
)
def test_levels_are_halvings_until_the_low_pass_is_small(longest, levels):
    assert lattice.levels_of(longest, 1) == lattice.levels_of(1, longest) == levels


@given(height=SIDES, width=SIDES)
def test_sizes_halve_upward(height, width):
    sizes = lattice.sizes_of(height, width)
    assert sizes[0] == (height, width)
    assert len(sizes) == lattice.levels_of(height, width) + 1
    for (tall, wide), (low_tall, low_wide) in pairwise(sizes):
        assert (low_tall, low_wide) == (-(-tall // 2), -(-wide // 2))
    if len(sizes) <= lattice.LEVELS:
        assert max(sizes[-1]) <= lattice.SMALLEST_LOW


@pytest.mark.parametrize("unit", [lattice.LOSSY_UNIT, lattice.LOSSLESS_UNIT])
def test_planes_turn_back_into_the_pixels_they_came_from(unit):
    pixels = pixels_of(7, 5)
    planes = lattice.to_planes(pixels, unit)
    assert planes.shape == (1, 3, 7, 5)
    assert planes.dtype == np.float32
    assert planes[0, 0, 2, 3] == (int(pixels[2, 3, 2]) - 128) * unit, "blue comes first"
    np.testing.assert_array_equal(lattice.to_pixels(planes, unit), pixels)


@pytest.mark.parametrize(
    ("value", "grey"), [(-5000, 0), (-1024, 0), (-4, 128), (-5, 127), (4, 128), (12, 130), (5000, 255)]
)
def test_pixels_round_halves_to_even_and_are_clipped(value, grey):
    assert lattice.to_pixels(np.full((1, 3, 1, 1), value, np.float32), 8).tolist() == [[[grey] * 3]]


def test_padding_repeats_the_last_row_and_column():
    planes = np.arange(3 * 3 * 5, dtype=np.float32).reshape(1, 3, 3, 5)
    padded = lattice.pad_even(planes)
    assert padded.shape == (1, 3, 4, 6)
    np.testing.assert_array_equal(padded[:, :, 3, :5], planes[:, :, 2])
    np.testing.assert_array_equal(padded[:, :, :, 5], padded[:, :, :, 4])
    even = np.zeros((1, 3, 4, 2), np.float32)
    assert lattice.pad_even(even) is even


def test_greyed_is_the_identity_on_grey_pixels():
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    np.testing.assert_array_equal(lattice.greyed(grey), grey)
    mixed = lattice.greyed(np.array([[[0, 1, 3]]], np.uint8))
    assert mixed.tolist() == [[[1, 1, 1]]]
