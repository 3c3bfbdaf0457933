"""Laws 2 and 3: threads, graph optimisation, kernels and batch size cannot change one bit."""

import itertools
from typing import get_args

import numpy as np
import onnxruntime
import pytest

from service import codec
from service.codec import flow, lattice
from service.codec.artifact import Optimisation
from service.codec.prior import PASSES, LevelPrior, select
from tests.codec.samples import pixels_of, rich_of

VARIANTS = list(itertools.product((1, 2), get_args(Optimisation), ("auto", "float")))[1:]


@pytest.fixture(scope="module")
def expected(models: codec.ModelSet) -> dict[float, bytes]:
    picture = rich_of(150, 133)
    return {q: codec.encode(picture, models.default, codec.Target(quality=q)).stream for q in (8, 55.5, 97, 100)}


@pytest.mark.parametrize(("threads", "optimisation", "kernels"), VARIANTS)
def test_runtime_options_change_no_byte(threads, optimisation, kernels, models, expected):
    options = codec.RuntimeOptions(device="cpu", threads=threads, optimisation=optimisation, kernels=kernels)
    other = codec.ModelSet([codec.open_model(models.default.folder, options)])
    picture = rich_of(150, 133)
    for quality, stream in expected.items():
        assert codec.encode(picture, other.default, codec.Target(quality=quality)).stream == stream
        here, there = codec.decode(stream, models).picture, codec.decode(stream, other).picture
        np.testing.assert_array_equal(here.pixels, there.pixels)


@pytest.mark.skipif("CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="has no CUDA")
def test_a_gpu_gives_the_same_bytes_and_pixels(models, expected):
    other = codec.ModelSet([codec.open_model(models.default.folder, codec.RuntimeOptions(device="cuda"))])
    for quality, stream in expected.items():
        assert codec.encode(rich_of(150, 133), other.default, codec.Target(quality=quality)).stream == stream
        here, there = codec.decode(stream, models).picture, codec.decode(stream, other).picture
        np.testing.assert_array_equal(here.pixels, there.pixels)
    codec.golden_check(other.default)


def test_the_golden_check_holds(models):
    for model in models:
        codec.golden_check(model)


@pytest.mark.parametrize("unit", [lattice.LOSSY_UNIT, lattice.LOSSLESS_UNIT])
@pytest.mark.parametrize("level", [0, 2, 5])
def test_a_batch_of_two_through_the_flow_is_each_by_itself(level, unit, models):
    model = models.default
    both = np.concatenate([lattice.to_planes(pixels_of(33, 47, seed), unit) for seed in (1, 2)])
    low, details = flow.forward(both, model, level, unit)
    for index in range(2):
        one_low, one_details = flow.forward(both[index : index + 1], model, level, unit)
        np.testing.assert_array_equal(low[index : index + 1], one_low)
        np.testing.assert_array_equal(details[index : index + 1], one_details)
    np.testing.assert_array_equal(flow.inverse(low, details, model, level, unit, (33, 47)), both)


@pytest.mark.parametrize("codes", [[0, 784], [301, 77], None], ids=str)
@pytest.mark.parametrize("level", [0, 3])
def test_a_batch_of_two_through_the_prior_is_each_by_itself(level, codes, models):
    model = models.default
    unit = lattice.LOSSLESS_UNIT if codes is None else lattice.LOSSY_UNIT
    rng, finer = np.random.default_rng(level), (25, 36)
    low = np.concatenate([lattice.to_planes(pixels_of(13, 18, seed), unit) for seed in (1, 2)])
    bins = np.rint(rng.laplace(size=(2, 9, 13, 18)) * 3).astype(np.int32)
    singles = [
        LevelPrior(model, low[i : i + 1], None, level, None if codes is None else codes[i : i + 1], unit, finer)
        for i in range(2)
    ]
    batch = LevelPrior(model, low, None, level, codes, unit, finer)
    for number in range(PASSES):
        means, scales = batch.said(number)
        own = select(bins, number)
        assert means.shape == scales.shape == own.shape
        for index, single in enumerate(singles):
            one_means, one_scales = single.said(number)
            np.testing.assert_array_equal(means[index : index + 1], one_means)
            np.testing.assert_array_equal(scales[index : index + 1], one_scales)
            single.learn(number, own[index : index + 1])
        batch.learn(number, own)
    offsets, handed_on = batch.finish()
    assert np.abs(offsets).max() < 128
    for index, single in enumerate(singles):
        one_offsets, one_handed_on = single.finish()
        np.testing.assert_array_equal(offsets[index : index + 1], one_offsets)
        assert (handed_on is None) == (one_handed_on is None) == (level == 0)
        if handed_on is not None and one_handed_on is not None:
            np.testing.assert_array_equal(handed_on.numpy()[index : index + 1], one_handed_on.numpy())
