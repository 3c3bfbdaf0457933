"""calibration: what a stream says of a level comes back, moves what the prior said as written, and no more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import codec
from service.codec.arrays import Integers
from service.codec.calibration import (
    AROUND,
    MEAN_LIMIT,
    OFF_LIMIT,
    SHIFT_LIMIT,
    WEIGHT_LIMIT,
    Calibrated,
    Calibration,
    Residuals,
    corrected,
    features_of,
)
from service.codec.centroids import ONE_BIN
from service.codec.coder_tables import Tables, symbols_of
from service.codec.entropy import Decoder, Encoder
from service.codec.errors import CorruptStreamError
from service.codec.prior import PASSES, PHASES, bands_of, codes_chroma, phase_of

CHANNELS = sum(len(bands_of(number)) for number in range(PASSES))
SIZES = [features_of(number) for number in range(PASSES) for _ in bands_of(number)]
SHIFTS = st.integers(-SHIFT_LIMIT, SHIFT_LIMIT)
WEIGHTS = st.integers(-WEIGHT_LIMIT, WEIGHT_LIMIT)


@pytest.fixture(scope="module")
def tables(models: codec.ModelSet) -> Tables:
    return models.default.tables.entropy_of(300)


@st.composite
def calibrations(draw: st.DrawFn) -> Calibration:
    weights: list[Integers | None] = [None] * CHANNELS
    for channel in draw(st.lists(st.integers(0, CHANNELS - 1), max_size=4)):
        own = draw(st.lists(WEIGHTS, min_size=SIZES[channel], max_size=SIZES[channel]))
        weights[channel] = np.array(own, np.int32)
    shifts = draw(st.lists(SHIFTS, min_size=CHANNELS, max_size=CHANNELS))
    return Calibration((draw(SHIFTS), draw(SHIFTS)), tuple(shifts), tuple(weights))


@given(calibrations())
def test_a_calibration_comes_back(tables: Tables, calibration: Calibration):
    encoder = Encoder(tables)
    calibration.write(encoder, tables)
    found = Calibration.read(Decoder(encoder.words(), tables))
    assert (found.colours, found.shifts) == (calibration.colours, calibration.shifts)
    for mine, theirs in zip(found.weights, calibration.weights, strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or theirs is None or mine.tolist() == theirs.tolist()


def test_saying_nothing_takes_next_to_nothing(tables: Tables):
    encoder = Encoder(tables)
    Calibration().write(encoder, tables)
    assert len(encoder.words()) <= 1


@pytest.mark.parametrize(
    ("colours", "shifts", "weight"),
    [((SHIFT_LIMIT + 1, 0), 0, 0), ((0, 0), -SHIFT_LIMIT - 1, 0), ((0, 0), 0, WEIGHT_LIMIT + 1)],
)
def test_impossible_numbers_are_refused(tables: Tables, colours: tuple[int, int], shifts: int, weight: int):
    weights = (np.array([weight, 0], np.int32) if weight else None, *[None] * (CHANNELS - 1))
    encoder = Encoder(tables)
    Calibration(colours, (shifts,) * CHANNELS, weights).write(encoder, tables)
    with pytest.raises(CorruptStreamError):
        Calibration.read(Decoder(encoder.words(), tables))


def test_a_flag_that_is_neither_is_refused(tables: Tables):
    encoder = Encoder(tables)
    numbers = np.zeros(2 + 2 * CHANNELS, np.int32)
    numbers[-1] = 2
    scales = np.array([20] * 2 + [10] * 2 * CHANNELS, np.int16)
    encoder.add(symbols_of(numbers, np.zeros_like(scales), scales, tables))
    with pytest.raises(CorruptStreamError):
        Calibration.read(Decoder(encoder.words(), tables))


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 4), (2, 1)])
@pytest.mark.parametrize("number", range(PASSES))
def test_features_are_what_is_known_around(number: int, size: tuple[int, int]):
    rng = np.random.default_rng(number)
    residuals, known = Residuals(size), np.zeros((9, *size), np.int64)
    for earlier in range(number):
        (row, column), bands = phase_of(earlier), list(bands_of(earlier))
        shape = known[bands, row::2, column::2].shape
        bins, means = rng.integers(-400, 400, shape).astype(np.int32), rng.integers(-900, 900, shape).astype(np.int16)
        residuals.learn(earlier, bins, means)
        known[bands, row::2, column::2] = np.clip(8 * bins - means, -OFF_LIMIT, OFF_LIMIT)
    (row, column), bands = phase_of(number), list(bands_of(number))
    means = rng.integers(-900, 900, known[bands, row::2, column::2].shape).astype(np.int16)
    features = residuals.features(number, means)
    assert features.shape == (len(bands), features_of(number), *means.shape[1:])
    np.testing.assert_array_equal(features[:, 0], means)
    assert (features[:, 1] == ONE_BIN).all()
    for index, band in enumerate(bands):
        for i, j in np.ndindex(means.shape[1:]):
            y, x = row + 2 * i, column + 2 * j
            for place, group in enumerate(AROUND[number % 4], 2):
                inside = [(y + d, x + r) for d, r in group if 0 <= y + d < size[0] and 0 <= x + r < size[1]]
                total = sum(int(known[band, b, a]) for b, a in inside)
                assert features[index, place, i, j] == min(max(total, -OFF_LIMIT), OFF_LIMIT)
            if codes_chroma(number):
                assert features[index, -1, i, j] == known[band // 3 * 3, y, x]


def test_each_phase_reads_only_neighbours_coded_before():
    for number, groups in enumerate(AROUND):
        (row, column), before = PHASES[number], PHASES[:number]
        places = {((row + down) % 2, (column + right) % 2) for group in groups for down, right in group}
        assert places <= set(before)


def test_means_move_by_weights_in_64ths_of_their_features_rounded_to_nearest():
    means = np.array([[10, -10, 1000]], np.int16)
    features = np.array([[[8, 8, 8]], [[100, -100, 2047]]], np.int32)
    moved = corrected(means, features, np.array([4, 16], np.int32))
    assert moved.tolist() == [[10 + 26, -10 - 24, 1000 + 512]]  # (32 + 1600 + 32) >> 6, (32 - 1600 + 32) >> 6, ...
    far = corrected(means, np.full((6, 1, 3), OFF_LIMIT, np.int32), np.full(6, WEIGHT_LIMIT, np.int32))
    assert (far == MEAN_LIMIT).all()
    assert corrected(means, features, np.zeros(2, np.int32)).tolist() == means.tolist()


def test_only_what_is_said_is_corrected(tables: Tables):
    rng = np.random.default_rng(0)
    weights: list[Integers | None] = [None] * CHANNELS
    weights[4] = np.array([0, 64, 0], np.int32)  # LH... of the second luma pass: its second channel, by one bin
    shifts = [0] * CHANNELS
    shifts[0] = 3
    calibrated = Calibrated(Calibration((1, -2), tuple(shifts), tuple(weights)), (8, 8), tables)
    for number in range(PASSES):
        shape = (len(bands_of(number)), 4, 4)
        means, scales = rng.integers(-50, 50, shape).astype(np.int16), rng.integers(0, 70, shape).astype(np.int16)
        own_means, own_scales = calibrated.said(number, means, scales)
        moved = np.zeros(shape[0], np.int16)
        moved[1] = ONE_BIN * (number == 1)
        np.testing.assert_array_equal(own_means, means + moved[:, None, None])
        shift = np.full(shape[0], -2 if codes_chroma(number) else 1)
        shift[0] += 3 * (number == 0)
        np.testing.assert_array_equal(own_scales, np.clip(scales + shift[:, None, None], 0, 69))
        calibrated.learn(number, np.zeros(shape, np.int32), means)
