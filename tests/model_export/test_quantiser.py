"""quantiser: the float twin chooses bins and points as the codec's integer quantiser does."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_export.prior import LOG2_SCALE_FIRST, LOG2_SCALE_STEP, logistic_bits
from model_export.quantiser import OUTWARD, choose_bins, outward_shift, reconstruct
from model_export.tables import parametric, prices, table_layout
from service.codec.entropy import make_tables
from service.codec.quantise import STEP_UNIT, WEIGHT_UNIT, Steps, choose, dequantise

WIDTH = 400
"""Lattice units of a step."""


@pytest.fixture(scope="module")
def tables():
    frequencies, layout = parametric(table_layout()), table_layout()
    starts = np.cumsum([0] + [len(f) for f in frequencies]).astype(np.int64)
    costs = np.concatenate([prices(f) for f in frequencies]).astype(np.int16)
    return make_tables(np.concatenate(frequencies).astype(np.uint32), starts, layout.choice[0], costs)


def steps_of(weight: float, shift: int) -> Steps:
    columns = [np.array([v], np.int32) for v in (WIDTH * STEP_UNIT, 8 - shift, 0, round(weight * WEIGHT_UNIT))]
    return Steps(columns[0], shift, *columns[1:])


@given(
    scale_and_eighths=st.tuples(st.integers(15, 26), st.integers(-4, 4)) | st.tuples(st.integers(27, 45), st.just(0)),
    weight=st.sampled_from([2.0, 6.0, 12.0]),
    shift=st.integers(0, 8),
)
def test_the_twin_chooses_the_codec_s_bins(tables, scale_and_eighths, weight, shift):
    scale, eighths = scale_and_eighths
    latent = np.random.default_rng(scale).uniform(-2.4 * WIDTH, 2.4 * WIDTH, (1, 40, 40)).astype(np.int32)
    means, scales = (np.full(latent.shape, value, np.int16) for value in (eighths, scale))
    exact = choose(latent, steps_of(weight, shift), means, scales, tables)
    log2_scale = torch.tensor(LOG2_SCALE_FIRST + LOG2_SCALE_STEP * scale)
    price = functools.partial(logistic_bits, mean=torch.tensor(eighths / 8), log2_scale=log2_scale)
    outward = torch.tensor(shift / 64)
    twin = choose_bins(torch.from_numpy(latent / np.float32(WIDTH)), torch.tensor(weight), outward, price)
    assert (twin.numpy() == exact).mean() > 0.99


@given(offset=st.integers(-127, 127), shift=st.integers(0, 8))
def test_the_twin_takes_the_codec_s_points(offset, shift):
    bins = np.arange(-4, 5, dtype=np.int32).reshape(1, 3, 3)
    exact = dequantise(bins, np.full(bins.shape, offset, np.int16), steps_of(0, shift))
    values, step = torch.from_numpy(bins.astype(np.float32)), torch.tensor(float(WIDTH))
    twin = reconstruct(values * WIDTH, step, values, torch.tensor(offset / 128), torch.tensor(shift / 64))
    assert np.abs(twin.numpy() - exact).max() <= WIDTH / 64 + 1


def test_the_shift_grows_from_nothing_to_its_limit():
    shift = outward_shift(torch.tensor([0.0, 1.0, 2.5, 4.0, 8.0]))
    assert shift.tolist() == pytest.approx([0, 0, OUTWARD / 2, OUTWARD, OUTWARD])
