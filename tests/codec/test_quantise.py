"""quantise: every reconstruction point is in its own bin, whatever the step, dead zone, margin and offset."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service import codec
from service.codec.quantise import STATE_LIMIT, STEP_UNIT, Steps, dequantise, quantise

IDENTITY = Steps(np.array([STEP_UNIT], np.int32), 0, 0, np.zeros(1, np.int32))


def steps_of(width: int, dead: int = 0, outward: int = 0, margin: int = 0) -> Steps:
    return Steps(np.array([width], np.int32), dead, outward, np.array([margin], np.int32))


def column(values: list[int] | range) -> NDArray[np.int32]:
    return np.array(list(values), np.int32).reshape(1, -1, 1)


@st.composite
def settings_of_a_channel(draw) -> Steps:
    dead = draw(st.integers(0, 31))
    return steps_of(draw(st.integers(STEP_UNIT, 65_535)), dead, draw(st.integers(0, dead)), draw(st.integers(0, 40)))


@given(
    steps=settings_of_a_channel(), bins=st.lists(st.integers(-3000, 3000), min_size=1), offset=st.integers(-127, 127)
)
def test_every_reconstruction_point_lies_in_its_own_bin(steps, bins, offset):
    bins = [b for b in bins if abs(b) * int(steps.width[0]) < STATE_LIMIT * STEP_UNIT] or [0]
    offsets = np.full((1, len(bins), 1), offset, np.int16)
    points = dequantise(column(bins), offsets, steps)
    assert quantise(points, steps).ravel().tolist() == bins


@given(steps=settings_of_a_channel(), values=st.lists(st.integers(-STATE_LIMIT, STATE_LIMIT), min_size=1))
def test_bins_are_those_of_the_formula(steps, values):
    width = int(steps.width[0])
    lead = width * (32 - steps.dead) // 64
    expected = [(1 if v >= 0 else -1) * ((abs(v) * STEP_UNIT + lead) // width) for v in values]
    assert quantise(column(values), steps).ravel().tolist() == expected


@given(steps=settings_of_a_channel())
def test_bins_never_fall_as_values_rise(steps):
    bins = quantise(column(range(-4998, 4999, 7)), steps).ravel()
    assert (np.diff(bins) >= 0).all()
    np.testing.assert_array_equal(bins, -bins[::-1])


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


def test_a_margin_keeps_points_away_from_thresholds():
    steps = steps_of(64 * 256, margin=30)
    extremes = [dequantise(column([1]), np.full((1, 1, 1), o, np.int16), steps).item() for o in (-127, 127)]
    assert extremes == [128 + 30, 383 - 30]


def test_each_channel_has_its_own_step():
    steps = Steps(np.array([64, 128, 640], np.int32), 0, 0, np.zeros(3, np.int32))
    latent = np.full((3, 1, 1), 20, np.int32)
    assert quantise(latent, steps).ravel().tolist() == [20, 10, 2]
    assert steps.channels(1, 3).width.tolist() == [128, 640]


def test_shipped_steps_keep_the_format_s_promises(models: codec.ModelSet):
    tables = models.default.tables
    assert tables.steps.shape == (785, models.default.levels, 12)
    assert tables.steps.min() >= STEP_UNIT
    assert ((tables.dead >= 0) & (tables.dead < 32)).all()
    odd = tables.steps // (tables.steps & -tables.steps)
    assert odd.max() < 2**10, "steps have at most ten significant bits"
    # A hair of noise from the learned gains may be left, but quality must not turn back over a whole point.
    assert (tables.steps[8:] <= tables.steps[:-8]).mean() > 0.95
