"""Latent <-> bins, differentiable: step sizes, dead zone, and what training puts in place of rounding.

The exact integer quantiser is service.codec.quantise; this is its float twin.

Source of the idea: L. Helminger et al., "Lossy Image Compression with Normalizing Flows", arXiv 2008.10486.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from model_export.flow.multilevel import MultilevelFlow
from model_export.integers import Exactable

LAST_POSITION = 784
"""Positions on the axis networks are conditioned on; the base step falls geometrically along it."""
FIRST_POSITION = -134
"""Below 0 networks see position 0, only the step goes on growing."""
LOG2_AT_ZERO, LOG2_AT_LAST = math.log2(160.0), math.log2(0.75)
LOSSLESS_POSITION = -1000
"""Stands for lossless coding."""
POSITIONS_PER_KNOT = 128
QUALITY_KNOTS = 8
LOSSLESS_KNOT = QUALITY_KNOTS
KNOTS = QUALITY_KNOTS + 1
OUTWARD = 0.1
THRESHOLD_SHARE = 1.8
"""The encoder moves its thresholds this much further outward than the decoder its points."""


def log2_delta(code: Tensor) -> Tensor:
    """Log2 of the base step in grey levels at a position: falls linearly."""
    return LOG2_AT_ZERO + (LOG2_AT_LAST - LOG2_AT_ZERO) * code / LAST_POSITION


def dead_zone(log2_step: Tensor) -> Tensor:
    """How far reconstruction points are moved outward, in bins: none below a step of 2, a tenth from 16 on."""
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
                one_hot = torch.eye(flow.levels)[level : level + 1]
                low = wavelet.inverse(low, details, one_hot, lambda x: x)
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
        weights = knot_weights(code)[:, :QUALITY_KNOTS]
        gain = weights @ self.gains[level] + self.common[level]
        return torch.exp2(log2_delta(code)[:, None] + gain) / self.norms[level]


def bins_of(value: Tensor, outward: Tensor) -> Tensor:
    """Bin of each value in units of its step; outward: shift of the points, thresholds move THRESHOLD_SHARE as far."""
    magnitude = torch.floor(value.detach().abs() + 0.5 - THRESHOLD_SHARE * outward).clamp(min=0)
    return torch.sign(value.detach()) * magnitude


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
    zero = bins == 0
    half = torch.where(zero, 0.5 + outward, torch.full_like(outward, 0.5))
    through = latent + (bins * step.detach() - latent).detach() + bins * (step - step.detach())
    return through + (torch.sign(bins) * outward + offset * half) * torch.where(zero, step.detach(), step)
