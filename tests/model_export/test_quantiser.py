"""quantiser: the float twin chooses bins and points as the codec's integer quantiser does."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_export.config import TINY
from model_export.flow.multilevel import MultilevelFlow
from model_export.model import TAPS_KEPT, CodecModel
from model_export.prior import LOG2_SCALE_FIRST, LOG2_SCALE_STEP, logistic_bits
from model_export.quantiser import (
    CHOICE_STRENGTHS,
    FEEDBACK_SIDE,
    FIRST_POSITION,
    LAST_POSITION,
    OUTWARD,
    STRENGTH_STEPS,
    Feedback,
    choice_strength,
    choose_bins,
    feedback_kernels,
    impulse,
    outward_shift,
    reconstruct,
    spread,
    synthesis,
)
from model_export.tables import parametric, parity_prices, prices, table_layout
from service.codec.choice import Values, choose
from service.codec.coder_tables import make_tables
from service.codec.feedback import KERNEL_BITS
from service.codec.feedback import Feedback as CodecFeedback
from service.codec.prior import PASSES, bands_of, select
from service.codec.quantise import STEP_UNIT, WEIGHT_UNIT, Steps, dequantise
from tests.codec.samples import MIDDLES

WIDTH = 400
"""Lattice units of a step."""


@pytest.fixture(scope="module")
def tables():
    frequencies, layout = parametric(table_layout()), table_layout()
    starts = np.cumsum([0] + [len(f) for f in frequencies]).astype(np.int64)
    costs = np.concatenate([prices(f) for f in frequencies]).astype(np.int16)
    parities = np.stack([parity_prices(f) for f in frequencies]).astype(np.int16)
    return make_tables(np.concatenate(frequencies).astype(np.uint32), starts, layout.choice[0], costs, parities)


def steps_of(weight: float, shift: int) -> Steps:
    columns = [np.array([v], np.int32) for v in (WIDTH * STEP_UNIT, 8, 0, round(weight * WEIGHT_UNIT))]
    return Steps(columns[0], shift, *columns[1:])


@given(
    scale_and_eighths=st.tuples(st.integers(15, 26), st.integers(-4, 4)) | st.tuples(st.integers(27, 45), st.just(0)),
    weight=st.sampled_from([2.0, 6.0, 12.0]),
    shift=st.integers(0, 8),
    lean=st.integers(-20, 20),
    elsewhere=st.none() | st.integers(-8, 8),
)
def test_the_twin_chooses_the_codec_s_bins(tables, scale_and_eighths, weight, shift, lean, elsewhere):
    scale, eighths = scale_and_eighths
    latent = np.random.default_rng(scale).uniform(-2.4 * WIDTH, 2.4 * WIDTH, (1, 40, 40)).astype(np.int32)
    means, scales = (np.full(latent.shape, value, np.int16) for value in (eighths, scale))
    moved = np.full(latent.shape, lean * WIDTH // 32, np.int32)
    costs = None if elsewhere is None else np.full(latent.shape, 256 * elsewhere, np.int16)
    exact = choose(Values(latent, moved, steps_of(weight, shift), means, scales, tables, MIDDLES, False, costs))
    log2_scale = torch.tensor(LOG2_SCALE_FIRST + LOG2_SCALE_STEP * scale)
    price = functools.partial(logistic_bits, mean=torch.tensor(eighths / 8), log2_scale=log2_scale)
    outward = torch.tensor(shift / 64)
    value, moved_bins = (torch.from_numpy(whole / np.float32(WIDTH)) for whole in (latent, moved))
    bits = None if elsewhere is None else torch.tensor(float(elsewhere))
    twin = choose_bins(value, moved_bins, torch.tensor(weight), outward, price, bits)
    assert (twin.numpy() == exact).mean() > 0.99


@given(offset=st.integers(-127, 127), shift=st.integers(0, 8))
def test_the_twin_takes_the_codec_s_points(offset, shift):
    bins = np.arange(-4, 5, dtype=np.int32).reshape(1, 3, 3)
    exact = dequantise(bins, np.full(bins.shape, offset, np.int16), steps_of(0, shift))
    values, step = torch.from_numpy(bins.astype(np.float32)), torch.tensor(float(WIDTH))
    twin = reconstruct(values * WIDTH, step, values, torch.tensor(offset / 128), torch.tensor(shift / 64))
    assert np.abs(twin.numpy() - exact).max() <= WIDTH / 64 + 1


@pytest.fixture(scope="module")
def flow() -> MultilevelFlow:
    return MultilevelFlow(3, 4)


@torch.no_grad()
@pytest.mark.parametrize(
    ("level", "colour", "wrong", "other", "row", "column"),
    [(0, 0, 0, 0, 1, 0), (1, 0, 1, 1, 1, 0), (2, 2, 1, 2, 0, 1)],
)
def test_an_error_is_best_made_good_where_the_kernel_says(flow, level, colour, wrong, other, row, column):
    kernel, n = feedback_kernels(flow)[level, int(colour > 0)], 16
    error = impulse(3 + colour + 3 * wrong, n)
    answer = torch.zeros_like(error)
    # A correlation at the other's place reads the error at its own less the other's.
    share = kernel[other, wrong, FEEDBACK_SIDE // 2 - row, FEEDBACK_SIDE // 2 - column]
    assert share != 0
    answer[0, 3 + colour + 3 * other, n // 2 + row, n // 2 + column] = 1
    left = [synthesis(flow, error - factor * share * answer, level).square().sum() for factor in (0.9, 1.0, 1.1)]
    assert left[1] < min(left[0], left[2], synthesis(flow, error, level).square().sum())


@torch.no_grad()
@pytest.mark.parametrize("level", [0, 2])
def test_colours_are_orthogonal(flow, level):
    y, cg, co = (synthesis(flow, impulse(3 + colour, 16), level).flatten() for colour in range(3))
    overlaps = [float(a @ b / (a.norm() * b.norm())) for a, b in ((y, cg), (y, co), (cg, co))]
    assert overlaps == pytest.approx([0, 0, 0], abs=0.003)


def test_the_twin_feeds_back_what_the_codec_does(models):
    tables, level, code = models.default.tables, 1, 300
    steps = Steps(tables.steps[code, level, 3:], int(tables.outward[code]), *[np.zeros(9, np.int32)] * 3)
    width = (steps.width.astype(np.float32) / STEP_UNIT)[None, :, None, None]
    details = np.rint(np.random.default_rng(3).laplace(0, width[0] / 2, (1, 9, 12, 16))).astype(np.int32)
    ours = CodecFeedback(models.default, details, level, [steps])
    units = torch.from_numpy(width)
    value, outward = torch.from_numpy(details.astype(np.float32)) / units, torch.full((1, 1, 1, 1), steps.outward / 64)
    twin = Feedback(value, units, outward, torch.from_numpy(tables.feedback[level]) / 2**KERNEL_BITS)
    for number in range(PASSES):
        bands = list(bands_of(number))
        exact = ours.shift(number)[0] / width[0, bands]
        np.testing.assert_allclose(twin.shift(number)[0].numpy(), exact, atol=0.03)
        bins = np.rint(select(details, number) / width[:, bands]).astype(np.int32)
        ours.learn(number, bins)
        twin.learn(number, torch.from_numpy(bins.astype(np.float32)))


def test_the_shift_grows_from_nothing_to_its_limit():
    shift = outward_shift(torch.tensor([0.0, 1.0, 2.5, 4.0, 8.0]))
    assert shift.tolist() == pytest.approx([0, 0, OUTWARD / 2, OUTWARD, OUTWARD])


def test_distortion_counts_less_where_steps_are_small():
    fine, coarse = (math.log2(step) for step in STRENGTH_STEPS)
    strength = choice_strength(torch.tensor([-1.0, fine, (fine + coarse) / 2, coarse, 9.0]))
    low, high = CHOICE_STRENGTHS
    assert strength.tolist() == pytest.approx([low, low, (low + high) / 2, high, high])


@torch.no_grad()
def test_kernels_follow_taps_that_move_far_enough_to_matter():
    model = CodecModel(TINY)
    first = model.feedback_kernels
    model.flow.wavelet.offsets.add_(TAPS_KEPT / 2)
    assert model.feedback_kernels is first
    torch.testing.assert_close(first, feedback_kernels(model.flow), atol=2**-KERNEL_BITS, rtol=0)
    model.flow.wavelet.offsets.add_(50 * TAPS_KEPT)
    assert torch.equal(model.feedback_kernels, feedback_kernels(model.flow))
    assert not torch.equal(model.feedback_kernels, first)


def test_qualities_of_a_batch_are_spread_over_the_axis():
    code = spread(5)
    width = (LAST_POSITION - FIRST_POSITION) / 5
    assert torch.equal(((code - FIRST_POSITION) / width).floor(), torch.arange(5.0))
