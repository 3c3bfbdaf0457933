"""flow: odd sides end without details of their own, so that what was decoded comes back at every size."""

import numpy as np
import pytest

from service import codec
from service.codec import flow, lattice
from service.codec.flow import present
from service.codec.prior import PASSES, LevelPrior, select
from service.codec.trellis import Trellis
from tests.codec.samples import pixels_of

SIZES = [(1, 1), (1, 8), (2, 3), (3, 2), (7, 9), (30, 47), (33, 46)]
UNITS = [lattice.LOSSY_UNIT, lattice.LOSSLESS_UNIT]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_details_that_are_not_there_are_0_and_not_read(size, unit, models):
    planes = lattice.to_planes(pixels_of(*size), unit)
    for level in (0, 3):
        low, details = flow.forward(planes, models.default, level, unit)
        there = np.broadcast_to(present(size), details.shape[1:])
        assert not details[:, ~there].any()
        rubbish = np.where(there, details, 12345).astype(np.float32)
        np.testing.assert_array_equal(flow.inverse(low, rubbish, models.default, level, unit, size), planes)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_as_many_details_as_samples(size):
    """The flow is a bijection: low-pass and details together are as many numbers as the planes have."""
    height, width = ((side + 1) // 2 for side in size)
    there = np.broadcast_to(present(size), (9, height, width))
    assert 3 * height * width + there.sum() == 3 * size[0] * size[1]


@pytest.mark.parametrize("size", [(7, 9), (30, 47), (33, 46)], ids=str)
def test_any_latent_comes_back_from_planes_of_any_size(size, models):
    """Details and low-passes that no picture gave: as a quantiser leaves them."""
    rng, (height, width) = np.random.default_rng(1), ((side + 1) // 2 for side in size)
    low = np.rint(rng.normal(0, 3000, (1, 3, height, width))).astype(np.float32)
    details = np.rint(rng.laplace(0, 300, (1, 9, height, width))).astype(np.float32) * present(size)
    planes = flow.inverse(low, details, models.default, 0, lattice.LOSSY_UNIT, size)
    again = flow.forward(planes, models.default, 0, lattice.LOSSY_UNIT)
    np.testing.assert_array_equal(again[0], low)
    np.testing.assert_array_equal(again[1], details)


@pytest.mark.parametrize("size", [(7, 9), (30, 47)], ids=str)
def test_what_is_not_there_costs_nothing_and_is_tied_to_nothing(size, models):
    height, width = ((side + 1) // 2 for side in size)
    low = np.full((1, 3, height, width), 900, np.float32)
    prior = LevelPrior(models.default, low, None, 0, [400], lattice.LOSSY_UNIT, size)
    there = np.broadcast_to(present(size), (1, 9, height, width))
    for number in range(PASSES):
        means, scales = prior.said(number)
        missing = ~select(there, number)
        assert not means[missing].any()
        assert not scales[missing].any()
        assert not missing.ravel()[Trellis.of(scales.ravel()).checks].any()
        prior.learn(number, np.zeros(means.shape, np.int32))


@pytest.mark.parametrize("height", [97, 128])
@pytest.mark.parametrize("width", [131, 192])
@pytest.mark.parametrize("quality", [20, 60, 90])
def test_a_decoded_picture_of_any_size_gives_its_stream_again(height, width, quality, models):
    pixels = (60 + pixels_of(height, width).astype(np.int32) * 130 // 255).astype(np.uint8)
    target = codec.Target(quality=quality)
    stream = codec.encode(codec.Picture(pixels), models.default, target).stream
    decoded = codec.decode(stream, models).picture
    assert codec.encode(decoded, models.default, target).stream == stream
