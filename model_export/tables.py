"""A trained model -> the integer tables it ships: steps, scales, and the entropy coder's frequencies.

Frequencies start as a discretised logistic and are then fitted: the residuals that meet each table (`counting`) are
smoothed where a table is wide, and mixed with the logistic.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.special import expit

from model_export.flow.multilevel import dyadic
from model_export.integers import BYTE_BITS
from model_export.model import CodecModel
from model_export.prior import EDGE_SCALE, LINEAR_BITS, LOG2_SCALE_FIRST, LOG2_SCALE_STEP, PLANE_LIMIT, SCALES
from model_export.quantiser import (
    LAST_POSITION,
    LOG2_AT_LAST,
    LOG2_AT_ZERO,
    OUTWARD,
    POSITIONS_PER_KNOT,
    QUALITY_KNOTS,
    RATE_DISTORTION,
    choice_strength,
    feedback_kernels,
    log2_delta,
    outward_shift,
    synthesis_kernels,
)
from service.codec import lattice, saturation
from service.codec.adjoint import STATE_BITS, SYNTHESIS_BITS
from service.codec.artifact import Model
from service.codec.centroids import DISTANCES, MAGNITUDES
from service.codec.clock import Clock
from service.codec.coder_tables import COST_UNIT, PRECISION_BITS, left_of
from service.codec.container import LAST_CODE
from service.codec.elsewhere import WORTH_BITS
from service.codec.feedback import KERNEL_BITS
from service.codec.flow import forward
from service.codec.quantise import STEP_UNIT, WEIGHT_UNIT
from service.codec.tile import analyse, encode_tiles
from service.codec.walk import LOW

FRACTIONS = 5
FRACTION_SCALE = 1.5
"""Wider tables do not distinguish fractions of the mean: it would change nothing."""
REACH, SMALLEST_HALF, LARGEST_HALF = 14, 4, 3000
ESCAPE_MASS = 2e-6
STEP_DIGITS = 10
TIED_END = saturation.LAST_CODE + 1
"""From this quality code on no bin has a parity that follows from others'."""
SET_ENDS = (130, 260, 400, 560, TIED_END, LAST_CODE + 1)
"""Each set of tables serves the quality codes below its end: the coarser the bins, the more of them the encoder's
choice moves towards 0, and what a trellis moves lies farther from its mean. One more set serves lossless streams."""
LOSSY_SETS = LOSSLESS_SET = len(SET_ENDS)
SETS = LOSSLESS_SET + 1
TRUST = 400.0
"""The logistic counts as much as this many residuals."""
SQUASH_SIZE = 256
"""Larger bins are read like the largest of these, at which both that is read of them has reached PLANE_LIMIT."""
NOMINAL_NOISE = 0.3
"""Standard deviation of a latent value after rounding to pixels and back, in grey levels over the band's norm."""
MARGIN, NARROWEST = 4.0, 9.0
"""Distance of points from thresholds, and width of the narrowest bin up to FAITHFUL_STEP, in standard deviations."""
NARROWEST_LOW = 14.0
"""The same width for low-passes. One bin of the coarsest that comes out another way changes all others, and in small or
odd pictures it moves by half as much again as in those the noise is measured on."""
MIDDLE = 0.02
"""How far below the middle of its bin a point may lie for all its margin, in bins: margins of narrow bins would push it
to where values are not."""
FAITHFUL_STEP = 3.0
"""Down to this base step, in grey levels, bins are kept wide enough to survive the rounding of pixels."""
NOISE_CODE = 440
"""Quality code (56) at which the noise is measured; it hardly depends on it."""
QUALITIES = ((1.0, 175.0), (90.0, 3.0), (99.0, 0.75))
"""Base step in grey levels at some qualities; geometric in between. Down to a step of about 3 a bin is wide enough
for the rounding of pixels not to matter, which is what re-encoding up to quality 90 asks for."""

Frequencies = list[NDArray[np.int64]]


@dataclass(frozen=True)
class Fits:
    """What is fitted to training pictures.

    Attributes:
        frequencies: Of each table of the entropy coder.
        centroids: [LOSSY_SETS, 2, MAGNITUDES, SCALES, DISTANCES], as `Centroids` has them.
    """

    frequencies: Frequencies
    centroids: NDArray[np.int8]


@dataclass(frozen=True)
class TableLayout:
    """Which table serves which scale index and fraction.

    Attributes:
        choice: [sets, SCALES, FRACTIONS].
        scales: Logistic scale of each table, in bins.
        fractions: |fraction| of each table, in 1/8 bin.
    """

    choice: NDArray[np.int16]
    scales: tuple[float, ...]
    fractions: tuple[int, ...]


def table_layout() -> TableLayout:
    """In each set one table per scale index and fraction where the scale is small, else one per scale index."""
    choice = np.zeros((SCALES, FRACTIONS), np.int16)
    scales: list[float] = []
    fractions: list[int] = []
    for index in range(SCALES):
        scale = 2.0 ** (LOG2_SCALE_FIRST + LOG2_SCALE_STEP * index)
        count = FRACTIONS if scale < FRACTION_SCALE else 1
        for fraction in range(FRACTIONS):
            choice[index, fraction] = len(scales) + min(fraction, count - 1)
        scales += [scale] * count
        fractions += list(range(count))
    sets = np.arange(SETS, dtype=np.int16)[:, None, None] * len(scales) + choice
    return TableLayout(sets, tuple(scales) * SETS, tuple(fractions) * SETS)


def half_of(scale: float) -> int:
    """Largest |residual| a table of this scale holds."""
    return min(LARGEST_HALF, math.ceil(REACH * scale) + SMALLEST_HALF)


def logistic_masses(scale: float, fraction: int) -> NDArray[np.float64]:
    """Masses of residuals -half ... half and of the escape."""
    half = half_of(scale)
    edges = (np.arange(-half, half + 2) - 0.5 - (fraction / 8 if scale < FRACTION_SCALE else 0)) / scale
    low, high = edges[:-1], edges[1:]
    # Differences of small numbers in either tail.
    inside = np.where(low > 0, expit(-low) - expit(-high), expit(high) - expit(low))
    return np.append(np.maximum(inside, 1e-12), max(1 - inside.sum(), ESCAPE_MASS))


def to_integers(masses: NDArray[np.float64]) -> NDArray[np.int64]:
    """Masses -> frequencies, at least 1 each, that add up to 2**PRECISION_BITS."""
    total = 2**PRECISION_BITS
    result = np.floor(masses / masses.sum() * (total - len(masses))).astype(np.int64) + 1
    result[int(result.argmax())] += total - int(result.sum())
    return result


def prices(frequencies: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cost of each symbol of a table in 1/256 bit."""
    return np.rint((PRECISION_BITS - np.log2(frequencies)) * COST_UNIT).astype(np.int64)


def parity_prices(frequencies: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cost of residuals being even and odd in a table, in 1/256 bit; escapes may be either."""
    return prices(np.array([left_of(frequencies, parity).sum() for parity in (0, 1)]))


def parametric(layout: TableLayout) -> Frequencies:
    """Tables of the discretised logistic."""
    return [to_integers(logistic_masses(s, f)) for s, f in zip(layout.scales, layout.fractions, strict=True)]


def unfitted() -> Fits:
    """Tables of the discretised logistic, and points where dequantisers alone put them."""
    centroids = np.zeros((LOSSY_SETS, 2, MAGNITUDES, SCALES, DISTANCES), np.int8)
    return Fits(parametric(table_layout()), centroids)


def fitted(layout: TableLayout, counts: list[NDArray[np.int64]]) -> Frequencies:
    """Counted tables, smoothed and mixed with the logistic."""
    result = []
    for scale, fraction, counted in zip(layout.scales, layout.fractions, counts, strict=True):
        prior = logistic_masses(scale, fraction)
        inside = counted[:-1].astype(np.float64)
        if fraction == 0:
            inside = (inside + inside[::-1]) / 2
        if scale > FRACTION_SCALE:
            inside = gaussian_filter1d(inside, scale / 5, mode="constant")
        mixed = np.append(inside, counted[-1]) + TRUST * prior / prior.sum()
        result.append(to_integers(mixed))
    return result


def positions_of_codes() -> NDArray[np.float64]:
    """Position of each quality code on the axis the networks are conditioned on."""
    quality = 1 + np.arange(LAST_CODE + 1) / 8
    log2_step = np.interp(quality, [q for q, _ in QUALITIES], [math.log2(step) for _, step in QUALITIES])
    return np.rint((log2_step - LOG2_AT_ZERO) / (LOG2_AT_LAST - LOG2_AT_ZERO) * LAST_POSITION)


def nominal_noise(model: CodecModel) -> NDArray[np.float64]:
    """Standard deviation of latent values after rounding to pixels and back, [levels, 12], in lattice units."""
    return np.asarray(NOMINAL_NOISE * lattice.LOSSY_UNIT / model.quantiser.norms.double().numpy())


def measured_noise(model: Model, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """The same, measured on decoded pictures; clipping is left out."""
    squares, counts, unit = np.zeros((model.levels, 12)), np.zeros((model.levels, 1)), lattice.LOSSY_UNIT
    for pixels in pictures:
        clock = Clock()
        latent = analyse(lattice.to_planes(pixels, unit), model, unit, clock)
        planes = encode_tiles(latent, model, [NOISE_CODE], clock)[0].planes
        assert planes is not None
        decoded, rounded = planes, (np.rint(planes / unit) * unit).astype(np.float32)
        for level in range(lattice.levels_of(*pixels.shape[:2])):
            (decoded, *exact), (rounded, *noisy) = (forward(p, model, level, unit) for p in (decoded, rounded))
            difference = np.concatenate([rounded, *noisy], 1) - np.concatenate([decoded, *exact], 1)
            squares[level] += np.square(difference[0], dtype=np.float64).sum((1, 2))
            counts[level] += difference[0, 0].size
    return np.sqrt(squares / np.maximum(counts, 1))


def integer_tables(
    model: CodecModel, layout: TableLayout, fits: Fits, noise: NDArray[np.float64]
) -> dict[str, NDArray[np.generic]]:
    """Everything tables.npz holds; noise as in `nominal_noise`."""
    levels, codes = model.config.levels, torch.from_numpy(positions_of_codes()).float()
    with torch.no_grad():
        grey = torch.stack([model.quantiser.steps(codes, level) for level in range(levels)], 1).double().numpy()
        weights = torch.stack([model.quantiser.weights(codes, level) for level in range(levels)], 1).double().numpy()
    steps = _step_widths(np.maximum(grey * lattice.LOSSY_UNIT * STEP_UNIT, STEP_UNIT))
    reading = lattice.READ_UNIT / lattice.LOSSY_UNIT
    # Edges are read in the steps the networks were trained with; what follows widens some of them.
    edges = np.concatenate([EDGE_SCALE * STEP_UNIT / (reading * steps[:, :, :3]), np.full((1, levels, 3), EDGE_SCALE)])
    shifts = outward_shift(log2_delta(codes)).numpy() * 64
    base = torch.exp2(log2_delta(codes)).double().numpy()
    deviations = np.where(np.arange(12) < LOW.stop, NARROWEST_LOW, NARROWEST)
    narrowest = deviations * noise * np.minimum(1, base / FAITHFUL_STEP)[:, None, None] * STEP_UNIT
    steps = _step_widths(np.maximum(steps, narrowest))
    # Where a bin is narrow the encoder has less of a choice, so that a margin fits on both sides of a point.
    margins = MARGIN * noise * STEP_UNIT / steps
    reaches = 64 * np.maximum(OUTWARD, np.maximum(margins + MIDDLE, 2 * margins - 0.5))
    sizes = np.arange(SQUASH_SIZE)
    squash = np.minimum(np.rint(2**BYTE_BITS * np.log2(1 + sizes)), PLANE_LIMIT)
    linear = np.minimum(sizes * 2**BYTE_BITS // 2**LINEAR_BITS, PLANE_LIMIT)
    gains, offsets = low_response(model)
    frequencies = fits.frequencies
    starts = np.cumsum([0] + [len(f) for f in frequencies])
    lossy_sets = np.searchsorted(SET_ENDS, range(LAST_CODE + 1), side="right")
    return {
        "frequencies": np.concatenate(frequencies).astype(np.uint32),
        "starts": starts.astype(np.int64),
        "choice": layout.choice,
        "table_sets": np.append(lossy_sets, LOSSLESS_SET).astype(np.int8),
        "prices": np.concatenate([prices(f) for f in frequencies]).astype(np.int16),
        "parity_prices": np.stack([parity_prices(f) for f in frequencies]).astype(np.int16),
        "steps": steps,
        "weights": np.rint(weights * WEIGHT_UNIT).astype(np.int32),
        "outward": np.rint(shifts).astype(np.int32),
        "centroids": fits.centroids,
        "reaches": np.ceil(reaches).clip(0, 32).astype(np.int32),
        "margins": np.floor(MARGIN * noise).astype(np.int32),
        "feedback": np.rint(feedback_kernels(model.flow).double().numpy() * 2**KERNEL_BITS).astype(np.int16),
        "synthesis": np.rint(synthesis_kernels(model.flow).double().numpy() * 2**SYNTHESIS_BITS).astype(np.int16),
        "worths": worths(codes),
        "edge_scales": np.vectorize(dyadic)(edges).astype(np.float32),
        "low_scales": model.flow.scales[:, 0].numpy().astype(np.float32),
        "low_gains": gains,
        "low_offsets": offsets,
        "squash": np.stack([squash, linear]).astype(np.uint8),
        "knots": np.array(QUALITY_KNOTS, np.int64),
        "positions": np.maximum(positions_of_codes(), 0).astype(np.int32),
        "positions_per_knot": np.array(POSITIONS_PER_KNOT, np.int64),
    }


def worths(codes: torch.Tensor) -> NDArray[np.int64]:
    """Exponents and what errors cost at positions, as `elsewhere` has them: [codes, 2]."""
    log2_step = log2_delta(codes).double() + math.log2(lattice.LOSSY_UNIT)
    exponents = torch.floor(log2_step)
    worth = 2 * choice_strength(log2_delta(codes).double()) * RATE_DISTORTION * torch.exp2(exponents - 2 * log2_step)
    return np.asarray(torch.stack([exponents, torch.round(worth * 2 ** (STATE_BITS + WORTH_BITS))], 1).long().numpy())


def _step_widths(widths: NDArray[np.float64]) -> NDArray[np.int32]:
    """Widths in 1/64 lattice unit -> the nearest of at most STEP_DIGITS significant bits."""
    return np.rint(np.vectorize(lambda width: dyadic(width, STEP_DIGITS))(widths)).astype(np.int32)


@torch.no_grad()
def low_response(model: CodecModel) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Gain of each rung's low-pass and its value for mid-grey, both [rungs, 3] (Y, Cg, Co), in 1/2**20.

    The coupling net may add a constant to the low-pass; flat pictures above and below the middle in one of Y, Cg,
    Co tell gain and constant apart.
    """
    levels, amplitude = model.config.levels, 64.0
    # Blue, green, red of a unit of Y, Cg and Co.
    colours = torch.tensor([[1.0, 1.0, 1.0], [-0.5, 0.5, -0.5], [-0.5, 0.0, 0.5]]) * amplitude
    flat = torch.cat([colours, -colours])[:, :, None, None].expand(-1, -1, 256, 256)
    gains, offsets, low = [], [], flat
    for lossless, level in itertools.product((False, True), range(levels)):
        low, _ = model.flow(low if level else flat, model.flow.rung(level, lossless, 6), torch.ones(6), False)
        middle = low[:, :, low.shape[2] // 2, low.shape[3] // 2].double()
        gains.append(((middle[:3] - middle[3:]).diagonal() / (2 * amplitude)).tolist())
        offsets.append(middle.mean(0).tolist())
    gain, offset = (np.rint(np.array(values) * 2**20).astype(np.int64) for values in (gains, offsets))
    return gain, offset
