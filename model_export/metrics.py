"""Rate and distortion figures: PSNR, MS-SSIM, BD-rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Curve = Sequence[tuple[float, float]]
"""Points (bits per pixel, PSNR in dB or any other quality that grows with the rate)."""

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponent of each scale, finest first (Wang, Simoncelli, Bovik 2003, section 3.2)."""

MS_SSIM_WINDOW_PIXELS = 11
MS_SSIM_SIGMA_PIXELS = 1.5


class NoOverlapError(ValueError):
    """Two curves share no range of PSNR."""


class TooSmallError(ValueError):
    """A picture is smaller than the window a metric looks through."""


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures in dB, all channels together; inf if equal."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ms_ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Multi-scale structural similarity of 8-bit pictures: 1 for equal ones.

    Five scales, 11x11 Gaussian window of sigma 1.5, only windows that lie wholly inside the picture, each channel by
    itself and then averaged, negative contrast terms taken as 0. Pictures whose shorter side is below 176 px get as
    many scales as hold a window, and the weights of those are scaled to sum 1. An odd last row or column is left out
    when halving.

    Args:
        a: Pixels, [H, W, C].
        b: Pixels of the same shape.

    Returns:
        Similarity, 0...1.

    Raises:
        TooSmallError: The shorter side is below 11 px.

    Source: Z. Wang, E. Simoncelli, A. Bovik, "Multi-scale structural similarity", Asilomar 2003.
    """
    scales = _scales(min(a.shape[:2]))
    weights = np.array(MS_SSIM_WEIGHTS[:scales]) / sum(MS_SSIM_WEIGHTS[:scales])
    first, second = (np.ascontiguousarray(np.moveaxis(p.astype(np.float64), -1, 0)) for p in (a, b))
    similarity = np.ones(first.shape[0])
    for scale in range(scales):
        luminance, contrast = _ssim_terms(first, second)
        term = luminance * contrast if scale == scales - 1 else contrast
        similarity *= np.maximum(term.mean(axis=(1, 2)), 0) ** weights[scale]
        first, second = _halve(first), _halve(second)
    return float(similarity.mean())


def in_decibel(similarity: float) -> float:
    """MS-SSIM on a scale on which curves can be told apart: -10 log10(1 - MS-SSIM); inf for 1."""
    return math.inf if similarity >= 1 else -10 * math.log10(1 - similarity)


def _scales(side_pixels: int) -> int:
    if side_pixels < MS_SSIM_WINDOW_PIXELS:
        raise TooSmallError(f"MS-SSIM needs sides of {MS_SSIM_WINDOW_PIXELS} px, this picture has {side_pixels}")
    return min(len(MS_SSIM_WEIGHTS), int(math.log2(side_pixels / MS_SSIM_WINDOW_PIXELS)) + 1)


def _ssim_terms(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    small, smaller = (0.03 * 255) ** 2, (0.01 * 255) ** 2
    mean_a, mean_b, square_a, square_b, product = (_window(p) for p in (a, b, a * a, b * b, a * b))
    variances = square_a - mean_a**2 + square_b - mean_b**2
    contrast = (2 * (product - mean_a * mean_b) + small) / (variances + small)
    luminance = (2 * mean_a * mean_b + smaller) / (mean_a**2 + mean_b**2 + smaller)
    return luminance, contrast


def _window(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.ndimage import correlate1d

    reach = MS_SSIM_WINDOW_PIXELS // 2
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / MS_SSIM_SIGMA_PIXELS) ** 2)
    taps /= taps.sum()
    rows = np.asarray(correlate1d(planes, taps, axis=1))[:, reach:-reach]
    return np.asarray(correlate1d(rows, taps, axis=2))[:, :, reach:-reach]


def _halve(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    even = planes[:, : planes.shape[1] // 2 * 2, : planes.shape[2] // 2 * 2]
    rows = even[:, 0::2] + even[:, 1::2]
    return np.asarray((rows[:, :, 0::2] + rows[:, :, 1::2]) / 4)


def shared_range(curve: Curve, anchor: Curve) -> tuple[float, float]:
    """Lowest and highest PSNR in dB that both curves reach.

    Raises:
        NoOverlapError: There is no such range.
    """
    low = max(min(p[1] for p in curve), min(p[1] for p in anchor))
    high = min(max(p[1] for p in curve), max(p[1] for p in anchor))
    if low >= high:
        raise NoOverlapError("the curves share no range of PSNR; measure more qualities")
    return low, high


def bd_rate(curve: Curve, anchor: Curve) -> float:
    """Mean rate difference at equal PSNR, in per cent; negative: `curve` needs less than `anchor`.

    Log-rate is interpolated piecewise by monotone cubics (PCHIP) over PSNR and averaged over the shared range.

    Source: G. Bjontegaard, VCEG-M33, 2001; PCHIP as in JCTVC-L1100.

    Raises:
        NoOverlapError: The curves share no range of PSNR.
    """
    from scipy.interpolate import PchipInterpolator

    low, high = shared_range(curve, anchor)
    areas = []
    for points in (curve, anchor):
        rising = sorted(points, key=lambda p: p[1])
        rate = PchipInterpolator([p[1] for p in rising], [math.log(p[0]) for p in rising])
        areas.append(float(rate.integrate(low, high)))
    return (math.exp((areas[0] - areas[1]) / (high - low)) - 1) * 100
