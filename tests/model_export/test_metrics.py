"""metrics: known identities, and what each figure must react to."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from model_export.metrics import (
    Curve,
    NoOverlapError,
    TooSmallError,
    bd_rate,
    in_decibel,
    ms_ssim,
    psnr,
    shared_range,
)

CURVE: Curve = [(0.2, 28.0), (0.5, 32.0), (1.1, 36.5), (2.3, 41.0)]


def picture(height: int = 192, width: int = 200, seed: int = 1) -> NDArray[np.uint8]:
    """Smooth colour with texture: metrics behave as on photographs."""
    rows, columns = np.mgrid[0:height, 0:width] / 40
    planes = np.stack([np.sin(rows + k) * 60 + np.cos(columns * (k + 1)) * 40 + 128 for k in range(3)], -1)
    noise = np.random.default_rng(seed).normal(0, 6, planes.shape)
    return np.clip(planes + noise, 0, 255).astype(np.uint8)


def noisy(pixels: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    noise = np.random.default_rng(7).normal(0, sigma, pixels.shape)
    return np.clip(np.round(pixels + noise), 0, 255).astype(np.uint8)


def test_psnr_of_equal_pictures_is_infinite() -> None:
    assert psnr(picture(), picture()) == math.inf


def test_psnr_of_an_error_of_one_grey_level() -> None:
    flat = np.full((16, 16, 3), 100, np.uint8)
    assert psnr(flat, flat + np.uint8(1)) == pytest.approx(20 * math.log10(255))


def test_psnr_does_not_wrap_around() -> None:
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert psnr(black, white) == 0 == psnr(white, black)


@pytest.mark.parametrize("side", [11, 40, 100, 175, 176, 177])
def test_ms_ssim_of_equal_pictures_is_one_at_any_number_of_scales(side: int) -> None:
    pixels = picture(side, side + 3)
    assert ms_ssim(pixels, pixels) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("side", [30, 190])
def test_ms_ssim_falls_as_noise_grows(side: int) -> None:
    pixels = picture(side, side)
    values = [ms_ssim(pixels, noisy(pixels, sigma)) for sigma in (2, 5, 10, 20, 40)]
    assert values == sorted(values, reverse=True)
    assert 0 <= values[-1] < values[0] < 1


def test_ms_ssim_is_symmetric_and_ignores_orientation() -> None:
    pixels = picture(192, 192)
    other = noisy(pixels, 12)
    value = ms_ssim(pixels, other)
    assert ms_ssim(other, pixels) == pytest.approx(value)
    assert ms_ssim(pixels.transpose(1, 0, 2), other.transpose(1, 0, 2)) == pytest.approx(value)
    assert ms_ssim(pixels[::-1], other[::-1]) == pytest.approx(value)


def test_ms_ssim_of_flat_pictures_is_the_luminance_term_alone() -> None:
    a, b = np.full((176, 176, 3), 100, np.uint8), np.full((176, 176, 3), 120, np.uint8)
    small = (0.01 * 255) ** 2
    luminance = (2 * 100 * 120 + small) / (100**2 + 120**2 + small)
    assert ms_ssim(a, b) == pytest.approx(luminance**0.1333, rel=1e-6)


def test_ms_ssim_of_an_inverted_picture_is_zero_not_complex() -> None:
    pixels = picture(192, 192)
    assert ms_ssim(pixels, 255 - pixels) == 0


def test_ms_ssim_refuses_pictures_below_its_window() -> None:
    with pytest.raises(TooSmallError, match="11 px"):
        ms_ssim(picture(10, 300), picture(10, 300))


def test_in_decibel() -> None:
    assert in_decibel(0.99) == pytest.approx(20)
    assert in_decibel(1.0) == math.inf


def test_bd_rate_of_a_curve_against_itself_is_nothing() -> None:
    assert bd_rate(CURVE, CURVE) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("factor", [1.1, 0.8, 3.0])
def test_bd_rate_of_a_scaled_curve_is_the_scale(factor: float) -> None:
    scaled = [(rate * factor, reached_db) for rate, reached_db in CURVE]
    assert bd_rate(scaled, CURVE) == pytest.approx((factor - 1) * 100)
    assert (1 + bd_rate(CURVE, scaled) / 100) == pytest.approx(1 / factor)


def test_bd_rate_looks_only_at_the_shared_range() -> None:
    longer = [(0.05, 20.0), *((rate * 1.1, reached_db) for rate, reached_db in CURVE), (90.0, 60.0)]
    assert shared_range(longer, CURVE) == (28.0, 41.0)
    assert bd_rate(longer, CURVE) == pytest.approx(10, abs=2)


def test_bd_rate_does_not_depend_on_the_order_of_points() -> None:
    worse = [(rate * 1.3, reached_db - 0.4) for rate, reached_db in CURVE]
    assert bd_rate(worse[::-1], CURVE) == pytest.approx(bd_rate(worse, CURVE))


def test_bd_rate_of_curves_apart_is_refused() -> None:
    with pytest.raises(NoOverlapError, match="more qualities"):
        bd_rate([(1.0, 50.0), (2.0, 55.0)], CURVE)
