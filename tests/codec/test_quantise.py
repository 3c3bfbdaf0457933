"""quantise: every reconstruction point finds its own bin again, whatever the step, shift, margin, offset and prior."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service import codec
from service.codec.centroids import Centroids
from service.codec.choice import Values, choose
from service.codec.coder_tables import Tables
from service.codec.container import code_of
from service.codec.quantise import FADE, STATE_LIMIT, STEP_UNIT, Steps, dequantise, drafted, faded, quantise
from tests.codec.samples import MIDDLES, centroids_of

NOTHING = np.zeros(1, np.int32)
IDENTITY = Steps(np.array([STEP_UNIT], np.int32), 0, NOTHING, NOTHING, NOTHING)


def steps_of(width: int, outward: int = 0, reach: int = 32, margin: int = 0, weight: int = 0) -> Steps:
    columns = [np.array([value], np.int32) for value in (width, reach, margin, weight)]
    return Steps(columns[0], outward, *columns[1:])


def column(values: list[int] | range) -> NDArray[np.int32]:
    return np.array(list(values), np.int32).reshape(1, -1, 1)


@st.composite
def settings_of_a_channel(draw) -> Steps:
    width = draw(st.integers(STEP_UNIT, 65_535))
    return steps_of(
        width,
        draw(st.integers(0, 31)),
        draw(st.integers(0, 32)) if width >= 4 * STEP_UNIT else 32,
        draw(st.integers(0, 40)),
        draw(st.integers(0, 400)),
    )


def chosen(
    latent: NDArray[np.int32],
    steps: Steps,
    tables: Tables,
    mean: int,
    scale: int,
    shift: int = 0,
    held: bool = True,
    centroids: Centroids = MIDDLES,
    elsewhere: int | None = None,
) -> NDArray[np.int32]:
    means, scales = (np.full(latent.shape, value, np.int16) for value in (mean, scale))
    shifts = np.full(latent.shape, shift, np.int32)
    costs = None if elsewhere is None else np.full(latent.shape, elsewhere, np.int16)
    return choose(Values(latent, shifts, steps, means, scales, tables, centroids, held, costs))


@given(
    steps=settings_of_a_channel(),
    bins=st.lists(st.integers(-3000, 3000), min_size=1),
    offset=st.integers(-254, 254),
    mean=st.integers(-400, 400),
    scale=st.integers(0, 69),
    shift=st.integers(-70_000, 70_000),
)
def test_every_reconstruction_point_finds_its_own_bin_again(models, steps, bins, offset, mean, scale, shift):
    bins = [b for b in bins if abs(b) * int(steps.width[0]) < STATE_LIMIT * STEP_UNIT] or [0]
    offsets = np.full((1, len(bins), 1), offset, np.int16)
    points = dequantise(column(bins), offsets, steps)
    assert quantise(points, steps).ravel().tolist() == bins
    assert drafted(points, steps).ravel().tolist() == bins
    tables = models.default.tables.entropy_of(392)
    again = chosen(points, steps, tables, mean, scale, shift, centroids=centroids_of(1))
    assert again.ravel().tolist() == bins


@given(steps=settings_of_a_channel(), values=st.lists(st.integers(-STATE_LIMIT, STATE_LIMIT), min_size=1))
def test_bins_are_those_of_the_formula(steps, values):
    width = int(steps.width[0])
    expected = [(1 if v >= 0 else -1) * ((abs(v) * STEP_UNIT + width // 2) // width) for v in values]
    assert quantise(column(values), steps).ravel().tolist() == expected


@given(steps=settings_of_a_channel())
def test_bins_never_fall_as_values_rise(steps):
    bins = quantise(column(range(-4998, 4999, 7)), steps).ravel()
    assert (np.diff(bins) >= 0).all()
    np.testing.assert_array_equal(bins, -bins[::-1])


@given(
    values=st.lists(st.integers(-60_000, 60_000), min_size=1),
    steps=settings_of_a_channel(),
    mean=st.integers(-40, 40),
    scale=st.integers(0, 69),
    shift=st.integers(-500, 500),
    held=st.booleans(),
    elsewhere=st.none() | st.integers(-5000, 5000),
)
def test_a_choice_is_the_nearest_bin_or_the_next_one_towards_zero_and_pays(
    models, values, steps, mean, scale, shift, held, elsewhere
):
    tables, latent, centroids = models.default.tables.entropy_of(392), column(values), centroids_of(2)
    nearest = quantise(latent, steps).ravel()
    taken = chosen(latent, steps, tables, mean, scale, shift, held, centroids, elsewhere).ravel()
    elsewhere = None if held else elsewhere
    moved = nearest != taken
    np.testing.assert_array_equal(taken[moved], (nearest - np.sign(nearest))[moved])
    said = np.full(latent.size, mean, np.int16), np.full(latent.size, scale, np.int16)
    place, width, outward = np.abs(latent.ravel()) * STEP_UNIT, int(steps.width[0]), steps.outward / 64
    best = place + np.sign(latent.ravel()) * shift * STEP_UNIT

    def loss(bins: NDArray[np.int32]) -> NDArray[np.float64]:
        """Bits, here and elsewhere, and distortion in what it is worth in bits."""
        moved_by = np.sign(latent.ravel()) * centroids.of(bins, *said) / 256
        point = np.abs(bins) + outward * (bins != 0) + moved_by
        distortion = (best / width - point) ** 2 * int(steps.weight[0]) / 16
        return np.asarray(distortion + (tables.costs(bins, *said) + (elsewhere or 0) * (bins != nearest)) / 256)

    rounding = 0.02 * int(steps.weight[0]) / 16 + 0.01
    assert (loss(taken) <= loss(nearest) + rounding).all()
    reach = held * steps.reach[0] / 64
    free = (place / width - np.abs(nearest) < (-reach if elsewhere is None else 1) - 0.01) & (nearest != 0)
    free &= steps.weight[0] > 0
    lower = nearest - np.sign(nearest)
    assert (loss(taken)[free] <= loss(lower)[free] + rounding).all()


def test_without_a_weight_the_nearest_bin_is_taken(models):
    latent, steps = column(range(-900, 900)), steps_of(64 * 40, outward=8, reach=0)
    taken = chosen(latent, steps, models.default.tables.entropy_of(392), 0, 0)
    np.testing.assert_array_equal(taken, quantise(latent, steps))


def test_a_draft_rounds_up_above_37_64ths_of_a_bin_or_where_points_may_lie():
    latent = column([0, 23, 24, 63, 64, -23, -24, 40 + 23, 40 + 24])
    assert drafted(latent, steps_of(64 * 40, outward=8, reach=8)).ravel().tolist() == [0, 0, 1, 1, 2, 0, -1, 1, 2]
    assert drafted(latent, steps_of(64 * 40, outward=8, reach=32)).ravel().tolist() == [0, 1, 1, 2, 2, -1, -1, 2, 2]


def test_a_cheap_weight_moves_what_the_prior_thinks_unlikely_and_a_dear_one_does_not(models):
    tables, latent = models.default.tables.entropy_of(392), column([36, -36, 39])
    cheap, dear = (steps_of(64 * 40, outward=8, reach=0, weight=weight) for weight in (40, 4000))
    assert chosen(latent, cheap, tables, 0, 0).ravel().tolist() == [0, 0, 0]
    assert chosen(latent, dear, tables, 0, 0).ravel().tolist() == [1, -1, 1]
    upper = column([40, 41, -59])
    assert chosen(upper, cheap, tables, 0, 0).ravel().tolist() == [1, 1, -1], "a decoder may have put them there"
    narrow, lower = steps_of(64 * 40, outward=8, reach=20, weight=40), column([27, 28, 39])
    assert chosen(lower, narrow, tables, 0, 0).ravel().tolist() == [0, 1, 1]
    assert chosen(lower, narrow, tables, 0, 0, held=False).ravel().tolist() == [0, 0, 0]


@given(offset=st.integers(-127, 127))
def test_a_step_of_one_lattice_unit_is_the_identity(offset):
    values = column([-STATE_LIMIT, -1025, -3, -1, 0, 1, 2, 999, STATE_LIMIT])
    np.testing.assert_array_equal(quantise(values, IDENTITY), values)
    np.testing.assert_array_equal(dequantise(values, np.full(values.shape, offset, np.int16), IDENTITY), values)


@pytest.mark.parametrize(
    ("width", "bins", "expected"), [(640, 3, 30), (640, -3, -30), (640, 0, 0), (96, 1, 2), (96, -1, -2)]
)
def test_without_an_offset_the_middle_of_the_bin_is_taken(width, bins, expected):
    point = dequantise(column([bins]), np.zeros((1, 1, 1), np.int16), steps_of(width))
    assert point.item() == expected


def test_an_offset_moves_by_256ths_of_a_bin_toward_larger_values():
    steps = steps_of(64 * 256)
    bins = column([2, 0, -2])
    moved = dequantise(bins, np.full((1, 3, 1), 100, np.int16), steps)
    assert moved.ravel().tolist() == [612, 100, -412]


def test_offsets_fade_towards_sides_where_the_picture_goes_on_and_nowhere_else():
    offsets = np.full((9, 12, 20), 100, np.int16)
    assert faded(offsets, (False, False, False, False)) is offsets
    ramp = [0, 25, 50, 75, 100]
    for sides, first in (((True, False, False, False), (1, 1)), ((False, False, True, False), (1, -1))):
        rows = np.moveaxis(faded(offsets, sides), first[0], 0)[:: first[1]]
        assert [set(np.unique(row)) for row in rows[: FADE + 1]] == [{value} for value in ramp]
        assert (rows[FADE:] == 100).all()
    both = faded(-offsets, (False, True, False, True))
    assert both[0, 5].tolist() == [-v for v in ramp] + [-100] * 10 + [-v for v in reversed(ramp)]
    corner = faded(offsets, (True, True, False, False))
    assert corner[3, 1].tolist()[:3] == [0, 25, 25]


def test_a_tile_narrower_than_two_fades_never_has_its_offsets_whole():
    narrow = faded(np.full((1, 3, 3), -5, np.int16), (True, True, True, True))
    assert narrow[0].tolist() == [[0, 0, 0], [0, -2, 0], [0, 0, 0]]


def test_a_margin_keeps_points_away_from_thresholds():
    steps = steps_of(64 * 256, margin=30)
    extremes = [dequantise(column([1]), np.full((1, 1, 1), o, np.int16), steps).item() for o in (-127, 127)]
    assert extremes == [128 + 30, 383 - 30]


def test_a_reach_keeps_points_above_where_the_encoder_has_a_choice():
    points = [dequantise(column([1]), np.full((1, 1, 1), -127, np.int16), steps_of(64 * 256, reach=r)) for r in (0, 16)]
    assert [p.item() for p in points] == [256, 256 - 64]


def test_an_outward_shift_moves_points_but_not_zero():
    points = dequantise(column([-2, -1, 0, 1]), np.zeros((1, 4, 1), np.int16), steps_of(64 * 256, outward=8))
    assert points.ravel().tolist() == [-512 - 32, -256 - 32, 0, 256 + 32]


def test_each_channel_has_its_own_step():
    nothing = np.zeros(3, np.int32)
    steps = Steps(np.array([64, 128, 640], np.int32), 0, nothing, nothing, nothing)
    latent = np.full((3, 1, 1), 20, np.int32)
    assert quantise(latent, steps).ravel().tolist() == [20, 10, 2]
    assert steps.channels(slice(1, 3)).width.tolist() == [128, 640]


def test_shipped_steps_keep_the_format_s_promises(models: codec.ModelSet):
    tables = models.default.tables
    assert tables.steps.shape == (785, models.default.levels, 12)
    assert tables.steps.min() >= STEP_UNIT
    assert ((tables.outward >= 0) & (tables.outward < 32)).all()
    assert ((tables.reaches >= 0) & (tables.reaches <= 32)).all()
    assert (tables.reaches[tables.steps < 4 * STEP_UNIT] == 32).all(), "the part points lie in is never empty"
    assert (tables.reaches + tables.outward[:, None, None] >= 8).all(), "a point without an offset is within reach"
    assert tables.weights.min() > 0
    odd = tables.steps // (tables.steps & -tables.steps)
    assert odd.max() < 2**10, "steps have at most ten significant bits"
    # A hair of noise from the learned gains may be left, but quality must not turn back over a whole point.
    assert (tables.steps[8:] <= tables.steps[:-8]).mean() > 0.95


def test_points_of_narrow_bins_may_lie_in_their_middle(models):
    """From quality 70 to 90 margins are a tenth of a bin and more: a reach no wider than that would push points out."""
    for model in models:
        tables, codes = model.tables, slice(code_of(70), code_of(90) + 1)
        below = tables.reaches[codes] * tables.steps[codes] / (64 * STEP_UNIT)
        assert (below >= tables.margins).all()
