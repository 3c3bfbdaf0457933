"""counting: what tables of the coder and centroids are fitted to."""

import numpy as np
import pytest

from model_export.counting import CountingEncoder, Counts, counted
from model_export.data import synthetic_pictures
from model_export.tables import LOSSY_SETS
from service import codec
from service.codec.artifact import SHIPPED
from service.codec.coder_tables import alike, symbols_of


def test_checks_are_not_counted(models: codec.ModelSet):
    """Their parities are others' doing."""
    tables = models.default.tables.entropy[0]
    met = [np.zeros(2 * half + 2, np.int64) for half in tables.whole.halves]
    encoder = CountingEncoder(tables, met)
    bins = np.array([0, 1, -1, 0, 2], np.int32)
    encoder.add(symbols_of(bins, *alike(5, 30), tables), np.array([1, 4]))
    table = int(tables.choice[30, 0])
    half = tables.whole.halves[table]
    assert sum(own.sum() for own in met) == 3
    assert met[table][half - 1 : half + 3].tolist() == [1, 2, 0, 0]


@pytest.fixture(scope="module")
def counts(models: codec.ModelSet) -> Counts:
    return Counts.of(models.default, synthetic_pictures(1, 64))


def test_every_value_of_every_lossy_set_is_counted_once(counts: Counts):
    details = 9 * sum(side * side for side in (32, 16, 8))
    assert counts.values.sum((1, 2, 3, 4)).tolist() == [details] * LOSSY_SETS
    assert counts.values[:, 0].sum() * 2 == counts.values[:, 1].sum()


def test_free_bins_and_low_passes_meet_the_tables(counts: Counts):
    """All bins of six lossy streams and a lossless one but for the checks, which are a fifth at most."""
    whole = 7 * (9 * sum(side * side for side in (32, 16, 8)) + 3 * 8 * 8)
    met = sum(int(own.sum()) for own in counts.residuals)
    assert 0.8 * whole < met < whole


def test_processes_share_pictures():
    folder, pictures = SHIPPED / (SHIPPED / "default").read_text().strip(), synthetic_pictures(3, 64)
    alone, together = (counted(folder, pictures, processes) for processes in (1, 2))
    for own, other in zip(alone.residuals, together.residuals, strict=True):
        np.testing.assert_array_equal(own, other)
    np.testing.assert_array_equal(alone.values, together.values)
    np.testing.assert_allclose(alone.left, together.left, rtol=0, atol=1e-9)


def test_centroids_lie_where_values_do(counts: Counts):
    """Many values a fifth of a bin outside their points move these by nearly as much, and three hardly."""
    values, left = np.zeros_like(counts.values), np.zeros_like(counts.left)
    for scale, number in ((20, 100_000), (50, 3)):
        values[2, 1, 1, scale, 8], left[2, 1, 1, scale, 8] = number, 0.2 * number
    values[2, 1, 0, 20, 12], left[2, 1, 0, 20, 12] = 100_000, -30_000.0
    found = Counts([], values, left).centroids()
    assert found.dtype == np.int8
    assert found[2, 1, 1, 20, 8] == pytest.approx(0.2 * 256, abs=2)
    assert found[2, 1, 1, 50, 8] == 0
    assert found[2, 1, 0, 20, 12] == pytest.approx(-0.3 * 256, abs=2)
    np.testing.assert_array_equal(found[:, :, 0], -found[:, :, 0, :, ::-1])
    assert not found[[0, 1, 3, 4, 5]].any()
    assert not found[2, 0].any()
