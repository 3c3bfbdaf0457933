"""fitting: how far the prior was off is found, said only where that pays, and the same whatever computes it."""

from __future__ import annotations

import numpy as np
import pytest

from service import codec
from service.codec.arrays import Integers, Shorts
from service.codec.calibration import Calibration, Said
from service.codec.coder_tables import Tables
from service.codec.entropy import NO_CHECKS, Encoder
from service.codec.fitting import SAMPLE, calibrate, solved
from service.codec.passes import write_passes
from service.codec.prior import PASSES, bands_of, codes_chroma, phase_of

SIZE = (120, 90)


@pytest.fixture(scope="module")
def tables(models: codec.ModelSet) -> Tables:
    return models.default.tables.entropy_of(None)


def passes_of(bins: Integers, means: Shorts, scales: Shorts) -> list[Said]:
    """A level's values, each [9, H, W], as passes tell them."""
    passes: list[Said] = []
    for number in range(PASSES):
        (row, column), bands = phase_of(number), list(bands_of(number))
        own = np.s_[bands, row::2, column::2]
        passes.append(Said(bins[own], means[own], scales[own], NO_CHECKS, 0))
    return passes


def drawn(rng: np.random.Generator, means: Shorts, scales: Shorts) -> Integers:
    """Bins as the prior foretells them."""
    return np.rint(means / 8 + rng.logistic(0, 2.0 ** (-4.8 + 0.2 * scales))).astype(np.int32)


def size_of(passes: list[Said], calibration: Calibration, tables: Tables) -> int:
    """Bytes of a level."""
    encoder = Encoder(tables)
    calibration.write(encoder, tables)
    write_passes(encoder, passes, calibration, tables)
    return len(encoder.words())


@pytest.mark.parametrize("off", [-4, -1, 0, 2, 5])
def test_scales_that_are_off_everywhere_shift_their_colour(tables: Tables, off: int):
    rng = np.random.default_rng(off + 10)
    means, scales = np.zeros((9, *SIZE), np.int16), rng.integers(30, 45, (9, *SIZE)).astype(np.int16)
    said = scales.copy()
    said[[0, 3, 6]] -= np.int16(off)
    found = calibrate(passes_of(drawn(rng, means, scales), means, said), SIZE, tables)
    assert abs(found.colours[0] - off) <= 1
    assert abs(found.colours[1]) <= 1


def test_one_channel_whose_scales_are_off_says_so_for_itself(tables: Tables):
    rng = np.random.default_rng(1)
    means, scales = np.zeros((9, *SIZE), np.int16), rng.integers(30, 45, (9, *SIZE)).astype(np.int16)
    said = scales.copy()
    said[8] -= np.int16(3)
    found = calibrate(passes_of(drawn(rng, means, scales), means, said), SIZE, tables)
    last = found.shifts[-1] + found.colours[1]
    assert abs(last - 3) <= 1
    assert all(abs(shift + found.colours[1]) <= 1 for shift in found.shifts[-6:-1])


def test_a_constant_and_what_is_off_around_are_found_and_pay(tables: Tables):
    rng = np.random.default_rng(2)
    means, scales = rng.integers(-20, 20, (9, *SIZE)).astype(np.int16), np.full((9, *SIZE), 32, np.int16)
    bins = drawn(rng, means, scales)
    bins[4] += 1  # a constant
    smooth = 4 * np.ones((5, 5)) / 5  # errors that neighbours share
    shared = np.zeros(SIZE)
    noise = rng.standard_normal((SIZE[0] + 4, SIZE[1] + 4))
    for y, x in np.ndindex(5, 5):
        shared += smooth[y, x] * noise[y : y + SIZE[0], x : x + SIZE[1]]
    bins[8] += np.rint(shared).astype(np.int32)
    passes = passes_of(bins, means, scales)
    found = calibrate(passes, SIZE, tables)
    constant, last = found.weights[14], found.weights[-1]  # HL of Cg in chroma's first pass; HH of Co in its last
    assert constant is not None
    assert abs(constant[1] - 64) < 8
    assert last is not None
    assert last[2:5].min() > 0
    assert last[2:5].sum() > 12
    assert sum(own is not None for own in found.weights) <= 12
    shifts_only = Calibration(found.colours, found.shifts)
    assert size_of(passes, found, tables) + 100 < size_of(passes, shifts_only, tables)


@pytest.mark.parametrize("size", [SIZE, (16, 12), (3, 2)])
def test_a_prior_that_is_right_is_left_alone(tables: Tables, size: tuple[int, int]):
    rng = np.random.default_rng(3)
    means, scales = (
        rng.integers(-20, 20, (9, *size)).astype(np.int16),
        rng.integers(20, 45, (9, *size)).astype(np.int16),
    )
    found = calibrate(passes_of(drawn(rng, means, scales), means, scales), size, tables)
    assert sum(own is not None for own in found.weights) <= 1
    assert np.count_nonzero(found.shifts) <= 4


def test_an_empty_pass_says_nothing(tables: Tables):
    nothing = np.zeros((9, 1, 1), np.int16)
    found = calibrate(passes_of(nothing.astype(np.int32), nothing, nothing), (1, 1), tables)
    assert all(own is None for own in found.weights)


def test_a_sample_decides_as_everything_would(tables: Tables):
    rng = np.random.default_rng(4)
    size = (300, 300)
    assert size[0] * size[1] // 4 > 5 * SAMPLE
    means, scales = np.zeros((9, *size), np.int16), np.full((9, *size), 34, np.int16)
    bins = drawn(rng, means, scales + np.int16(3)) + 1
    found = calibrate(passes_of(bins, means, scales), size, tables)
    assert all(abs(found.colours[codes_chroma(number)] - 3) <= 1 for number in (0, 4))
    constants = [own[1] for own in found.weights if own is not None]
    assert len(constants) > 30
    assert abs(np.mean(constants) - 64) < 8


def test_systems_are_solved_in_one_order_of_operations():
    rng = np.random.default_rng(5)
    root = rng.integers(-9, 9, (7, 12, 6)).astype(np.float64)
    matrix, right = root.transpose(0, 2, 1) @ root + np.eye(6), rng.integers(-99, 99, (7, 6)).astype(np.float64)
    before = matrix.copy(), right.copy()
    found = solved(matrix, right)
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right[:, :, None])[:, :, 0], rtol=1e-9)
    assert (matrix == before[0]).all()
    assert (right == before[1]).all()
    alone = np.concatenate([solved(matrix[i : i + 1], right[i : i + 1]) for i in range(7)])
    assert (alone == found).all()
