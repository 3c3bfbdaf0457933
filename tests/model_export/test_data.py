"""data: crops have the size asked for, and some the chroma of pictures that came out of a file with less of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from model_export import data
from model_export.data import (
    CONVERSION_SHARES,
    TO_YCC,
    Workshop,
    any_conversion,
    batches,
    converted,
    grained,
    subsampled,
    synthetic_pictures,
    to_tensor,
)
from service.codec.forms import settled


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_wide_crops_have_twice_the_side_and_a_quarter_of_the_number(share):
    pictures = synthetic_pictures(2, 64)
    batch = next(batches(pictures, 32, 8, np.random.default_rng(0), share))
    assert tuple(batch.shape) == ((2, 3, 64, 64) if share else (8, 3, 32, 32))


def test_processes_of_a_workshop_cut_different_crops_as_bytes():
    workshop = Workshop(synthetic_pictures(4, 96), 32, 2, 0.0, np.random.default_rng(0))
    batches = itertools.islice(workshop.loader(2), 4)
    first, second, *_ = crops = list(batches)
    assert all(crop.shape == (2, 3, 32, 32) and crop.dtype == torch.uint8 for crop in crops)
    assert not torch.equal(first, second)


def test_pictures_too_small_for_wide_crops_give_plain_ones():
    batch = next(batches(synthetic_pictures(2, 48), 32, 8, np.random.default_rng(0), 1.0))
    assert tuple(batch.shape) == (8, 3, 32, 32)


def colourful(seed: int = 0) -> data.Picture:
    """Random colours, away from both ends."""
    return np.random.default_rng(seed).integers(64, 192, (16, 24, 3)).astype(np.uint8)


def chroma_of(picture: data.Picture) -> np.ndarray:
    ycc: np.ndarray = picture @ TO_YCC.T
    return ycc[..., 1:]


@pytest.mark.parametrize("interpolation", data.INTERPOLATIONS)
@pytest.mark.parametrize("axes", [(0, 1), (1,)])
def test_luma_stays_where_chroma_is_subsampled(axes, interpolation):
    picture = colourful()
    result = subsampled(picture, axes, interpolation)
    assert result.dtype == np.uint8
    assert result.shape == picture.shape
    assert np.abs((result.astype(int) - picture) @ TO_YCC[0]).max() < 2


@pytest.mark.parametrize("interpolation", ["co-sited", "repeated"])
@pytest.mark.parametrize("axes", [(0, 1), (1,)])
def test_every_other_sample_of_subsampled_chroma_follows_from_the_others(axes, interpolation):
    chroma = chroma_of(subsampled(colourful(), axes, interpolation))
    for axis in (0, 1):
        turned = np.moveaxis(chroma, axis, 0)
        before, between, after = turned[:-2:2], turned[1:-1:2], turned[2::2]
        left = np.abs(between - ((before + after) / 2 if interpolation == "co-sited" else before)).mean()
        assert left < 1.2 if axis in axes else left > 8


def test_centred_samples_lie_a_quarter_of_the_way_to_the_next():
    steps = np.repeat(np.arange(6) * 20 + 64, 4)[None, :, None] * np.ones((4, 1, 1)) * [0, 0, 1] + [128, 128, 0]
    result = subsampled(steps.astype(np.uint8), (0, 1), "centred")
    coarse = chroma_of(steps.astype(np.uint8))[0].reshape(-1, 2, 2).mean(1)
    between = np.stack([(3 * coarse[1:] + coarse[:-1]) / 4, (3 * coarse[:-1] + coarse[1:]) / 4], 1)
    np.testing.assert_allclose(chroma_of(result)[0, 2::2], between[:, 0], atol=1.2)
    np.testing.assert_allclose(chroma_of(result)[0, 1:-1:2], between[:, 1], atol=1.2)


def test_some_crops_are_grey_and_some_have_less_chroma():
    rng = np.random.default_rng(3)
    picture = np.random.default_rng(4).integers(64, 192, (32, 32, 3)).astype(np.uint8)
    crops = [data.crop(picture, 32, rng) for _ in range(400)]
    grey = np.mean([(np.ptp(crop, axis=-1) == 0).all() for crop in crops])
    rough = np.std(chroma_of(picture), axis=(0, 1)).sum()
    softer = np.mean([np.std(chroma_of(crop), axis=(0, 1)).sum() < 0.85 * rough for crop in crops])
    assert grey == pytest.approx(data.GREY_SHARE, abs=0.03)
    assert softer == pytest.approx(data.GREY_SHARE + (1 - data.GREY_SHARE) * data.SUBSAMPLED_SHARE, abs=0.08)


@pytest.mark.parametrize("seed", range(4))
def test_grain_is_as_strong_as_asked_for_at_half_brightness(seed):
    picture = np.full((128, 128, 3), 128, np.uint8)
    result = grained(picture, 3.0, np.random.default_rng(seed)).astype(float)
    np.testing.assert_allclose(result.std((0, 1)), 3.0, rtol=0.08)
    np.testing.assert_allclose(result.mean((0, 1)), 128, atol=0.2)


def test_grain_differs_from_crop_to_crop():
    """Common to the colours here and of their own there, soft and crisp."""
    picture = np.full((128, 128, 3), 128, np.uint8)
    crops = [grained(picture, 4.0, np.random.default_rng(seed)).astype(float) - 128 for seed in range(20)]
    between_colours = [np.corrcoef(crop[..., 0].ravel(), crop[..., 1].ravel())[0, 1] for crop in crops]
    between_neighbours = [np.corrcoef(crop[:, 1:, 0].ravel(), crop[:, :-1, 0].ravel())[0, 1] for crop in crops]
    assert max(between_colours) - min(between_colours) > 0.5
    assert max(between_neighbours) - min(between_neighbours) > 0.3


@pytest.mark.parametrize("conversion", CONVERSION_SHARES, ids=lambda own: own.name)
def test_converted_batches_are_planes_of_luma_and_chroma(conversion):
    pictures = np.stack([colourful(seed) for seed in range(2)])
    planes = converted(to_tensor(pictures), conversion) - 128
    assert planes.shape == (2, 3, 16, 24)
    for own, picture in zip(planes.numpy(), pictures, strict=True):
        np.testing.assert_array_equal(settled(own, conversion), conversion.estimated(picture))


def test_every_conversion_is_met():
    rng = np.random.default_rng(0)
    assert {any_conversion(rng).name for _ in range(60)} == {own.name for own in CONVERSION_SHARES}
