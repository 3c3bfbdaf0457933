"""Latent <-> bins, differentiable: step sizes, rate-aware choice of bins, and what training puts in place of rounding.

The exact integer quantiser is service.codec.quantise; this is its float twin.

Sources: L. Helminger et al., "Lossy Image Compression with Normalizing Flows", arXiv 2008.10486; K. Ramchandran and
M. Vetterli, "Rate-Distortion Optimal Fast Thresholding with Complete JPEG/MPEG Decoder Compatibility", 1994.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from model_export.flow.multilevel import MultilevelFlow
from model_export.integers import Exactable, bounded

LAST_POSITION = 784
"""Positions on the axis networks are conditioned on; the base step falls geometrically along it."""
FIRST_POSITION = -48
"""Below 0 networks see position 0, only the step goes on growing."""
LOG2_AT_ZERO, LOG2_AT_LAST = math.log2(160.0), math.log2(0.75)
LOSSLESS_POSITION = -1000
"""Stands for lossless coding."""
POSITIONS_PER_KNOT = 128
QUALITY_KNOTS = 8
LOSSLESS_KNOT = QUALITY_KNOTS
KNOTS = QUALITY_KNOTS + 1
OUTWARD = 0.125
"""Most that reconstruction points are moved away from 0, in bins; from it follows how near 0 a bin's points may lie."""
RATE_DISTORTION = 8.656
"""6 / ln 2: bits per squared grey level and squared step at which a uniform quantiser is optimal at high rate."""
CHOICE_STRENGTH = 0.4
"""Share of RATE_DISTORTION that weighs distortion when the encoder chooses between two bins."""


def log2_delta(code: Tensor) -> Tensor:
    """Log2 of the base step in grey levels at a position: falls linearly."""
    return LOG2_AT_ZERO + (LOG2_AT_LAST - LOG2_AT_ZERO) * code / LAST_POSITION


def outward_shift(log2_step: Tensor) -> Tensor:
    """How far reconstruction points are moved outward, in bins: none below a step of 2, OUTWARD from 16 on."""
    return OUTWARD * ((log2_step - 1.0) / 3.0).clamp(0.0, 1.0)


def knot_weights(code: Tensor) -> Tensor:
    """Hat functions over the quality knots: [N] positions -> [N, KNOTS]."""
    position = code.clamp(min=0) / POSITIONS_PER_KNOT
    knots = torch.arange(QUALITY_KNOTS, device=code.device)
    hats = (1 - (position[:, None] - knots).abs()).clamp(min=0)
    lossless = (code == LOSSLESS_POSITION)[:, None]
    return torch.cat([hats * ~lossless, lossless.to(hats.dtype)], 1)


@torch.no_grad()
def synthesis_norms(flow: MultilevelFlow, side: int = 512) -> Tensor:
    """L2 norm in RGB of each band's synthesis basis function, [levels, 12] (low 3, details 9), wavelet alone."""
    wavelet, rows = flow.wavelet, []
    for last in range(flow.levels):
        n = side >> (last + 1)
        row = []
        for channel in range(12):
            z = torch.zeros(1, 12, n, n)
            z[0, channel, n // 2, n // 2] = 1
            low, details = z[:, :3], z[:, 3:]
            for level in reversed(range(last + 1)):
                low = wavelet.inverse(low, details, flow.rung(level, False, 1), lambda x: x)
                details = torch.zeros(1, 9, *low.shape[2:])
            y, cg, co = low.split(1, 1)
            b = y - cg / 2 - co / 2
            row.append(torch.cat([b, cg + y - cg / 2, co + b], 1).norm())
        rows.append(torch.stack(row))
    return torch.stack(rows)


class Quantiser(Exactable):
    """Step sizes of every band: the base step over the band's norm, times a learned gain.

    Args:
        norms: [levels, 12] synthesis norms.
    """

    norms: Tensor

    def __init__(self, norms: Tensor) -> None:
        super().__init__()
        self.register_buffer("norms", norms)
        self.gains = nn.Parameter(torch.zeros(norms.shape[0], QUALITY_KNOTS, 12))
        self.common = nn.Parameter(torch.zeros(norms.shape[0], 12))

    def steps(self, code: Tensor, level: int) -> Tensor:
        """Steps in grey levels of one level's 12 bands for lossy positions [N] -> [N, 12]."""
        return torch.exp2(log2_delta(code)[:, None] + self._log2_gain(code, level)) / self.norms[level]

    def weights(self, code: Tensor, level: int) -> Tensor:
        """What a squared bin costs in each of a level's 12 bands, in bits: [N] -> [N, 12]."""
        return CHOICE_STRENGTH * RATE_DISTORTION * torch.exp2(2 * self._log2_gain(code, level).detach())

    def _log2_gain(self, code: Tensor, level: int) -> Tensor:
        return knot_weights(code)[:, :QUALITY_KNOTS] @ self.gains[level] + self.common[level]


@torch.no_grad()
def choose_bins(
    value: Tensor, weight: Tensor, outward: Tensor, bits: Callable[[Tensor], Tensor], allowed: bool = True
) -> Tensor:
    """The nearest bin, or the next one towards 0 where the bits it saves are worth the distortion.

    Only values below the points a bin may be decoded to are moved, so a decoded value always finds its own bin again.

    Args:
        value: In units of the step.
        weight: Bits a squared bin of distortion is worth, broadcast over value.
        outward: Outward shift of the points, in bins, broadcast over value.
        bits: Bits of each bin.
        allowed: False: always the nearest.
    """
    magnitude, sign = value.abs(), torch.sign(value)
    nearest = torch.floor(magnitude + 0.5)
    if not allowed:
        return sign * nearest
    lower = (nearest - 1).clamp_min(0)
    near, far = nearest + outward, lower + outward * (lower > 0)
    worth = weight * ((magnitude - far).square() - (magnitude - near).square())
    saved = bits(sign * nearest) - bits(sign * lower)
    movable = (nearest > 0) & (magnitude - nearest < outward - OUTWARD)
    return sign * torch.where(movable & (saved > worth), lower, nearest)


def reconstruct(latent: Tensor, step: Tensor, bins: Tensor, offset: Tensor, outward: Tensor) -> Tensor:
    """Point of each bin the decoder takes, in grey levels.

    The gradient reaches the latent straight through. It reaches the step only where the bin is not 0: a step that
    changes a little leaves a zero where it is.

    Args:
        latent: Before quantisation, in grey levels.
        step: Of each channel, in grey levels.
        bins: Of the latent.
        offset: Within (-1, 1): half bins.
        outward: Shift of the points away from 0, in bins.
    """
    sign = torch.sign(bins)
    within = bounded(outward + sign * offset / 2, outward - OUTWARD, torch.full_like(outward, 0.5))
    within = torch.where(bins == 0, offset / 2, sign * within)
    through = latent + (bins * step.detach() - latent).detach() + bins * (step - step.detach())
    return through + within * torch.where(bins == 0, step.detach(), step)
