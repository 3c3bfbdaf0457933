"""centroids: found by a bin's size, scale index and the prior's mean, and the same on both sides of 0."""

import numpy as np

from service import codec
from service.codec.centroids import DISTANCES, FAR, MAGNITUDES, Centroids
from service.codec.container import LAST_CODE
from tests.codec.samples import centroids_of


def at(bins: list[int], means: list[int], scale: int = 20, centroids: Centroids | None = None) -> list[int]:
    scales = np.full(len(bins), scale, np.int16)
    found = (centroids or centroids_of(4)).of(np.array(bins, np.int32), np.array(means, np.int16), scales)
    return [int(value) for value in found]


def test_bins_on_both_sides_of_0_are_mirrored():
    bins, means = [0, 1, 1, 2, 9, 0, 3], [3, 8, -2, 17, 40, -8, -400]
    assert at([-b for b in bins], [-m for m in means]) == [-value for value in at(bins, means)]


def test_what_counts_is_how_far_the_mean_lies_from_the_middle_and_large_bins_are_alike():
    table = centroids_of(4).table
    assert at([1, 2, 7], [8 + 3, 16 + 3, 56 + 3]) == [table[1, 20, FAR + 3], *[table[2, 20, FAR + 3]] * 2]
    assert at([1, 1], [8 + FAR, 300]) == [table[1, 20, -1]] * 2
    assert at([-1, -1], [-8 + FAR, 300]) == [-table[1, 20, 0]] * 2
    assert at([1], [8], scale=41) == [table[1, 41, FAR]]


def test_shipped_ones_are_within_half_a_bin_and_mirrored_where_the_bin_is_0(models: codec.ModelSet):
    for model in models:
        for code in (0, 392, LAST_CODE):
            for centroids in model.tables.centroids_of(code):
                assert centroids.table.shape == (MAGNITUDES, 70, DISTANCES)
                assert np.abs(centroids.table.astype(int)).max() < 128
                np.testing.assert_array_equal(centroids.table[0], -centroids.table[0, :, ::-1])
