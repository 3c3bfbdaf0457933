"""Picture <-> latent: colour, then wavelet and coupling again and again on the low-pass.

    planes --colour--> Y Cg Co --wavelet--> low, details --coupling--> low, details
                                   ^                                    |
                                   +------------ next level ------------+

State: integers (in float32) on a lattice of 1/unit grey level, unit = 64 for lossy and 1 for lossless streams. A rung
is a level on one of the two lattices, numbered from the finest lossy one to the coarsest lossless one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model_export.flow import colour
from model_export.flow.coupling import Coupling
from model_export.flow.lifting import LATTICES
from model_export.flow.wavelet import Wavelet
from model_export.integers import Exactable, round_through

SCALE_DIGITS = 7
"""Significant bits of the per-level scales, so that state * scale is exact."""


def dyadic(value: float, digits: int = SCALE_DIGITS) -> float:
    """The nearest number of `digits` significant bits."""
    exponent = math.floor(math.log2(value)) - (digits - 1)
    return round(value / 2.0**exponent) * 2.0**exponent


def floor_through(x: Tensor) -> Tensor:
    """Round down; the gradient is that of the identity."""
    return x + (torch.floor(x) - x).detach()


def identity(x: Tensor) -> Tensor:
    """No rounding: the float stage of training."""
    return x


class MultilevelFlow(Exactable):
    """The whole flow; one set of weights for all levels.

    Args:
        levels: Number of levels; each has parameters of its own on each lattice.
        hidden: Hidden channels of the coupling net.
    """

    scales: Tensor

    def __init__(self, levels: int, hidden: int) -> None:
        super().__init__()
        self.levels = levels
        self.rungs = levels * len(LATTICES)
        self.wavelet = Wavelet(levels)
        self.coupling = Coupling(hidden, self.rungs)
        gains = [lattice.low_gain ** (level + 1) for lattice in LATTICES for level in range(levels)]
        scales = torch.tensor([[dyadic(1 / (16 * gain)), dyadic(gain)] for gain in gains])
        self.register_buffer("scales", scales, persistent=False)

    def rung(self, level: int, lossless: bool, count: int) -> Tensor:
        """One-hot of a level of one of the lattices, [count, rungs]."""
        row = torch.zeros(count, self.rungs, device=self.scales.device)
        row[:, level + self.levels * lossless] = 1
        return row

    def conditions(self, rung: Tensor, unit: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gate and lean of the colour step, scale and gain of the coupling: four of [N, 1, 1, 1]."""
        chosen = rung @ self.scales
        gate = rung[:, :: self.levels].sum(1)[:, None, None, None]
        lean = (colour.LEAN * rung[:, 0])[:, None, None, None]
        scale = (2 * chosen[:, :1] / unit[:, None])[:, :, None, None]
        gain = (chosen[:, 1:] * unit[:, None])[:, :, None, None]
        return gate, lean, scale, gain

    def forward(self, x: Tensor, rung: Tensor, unit: Tensor, rounded: bool) -> tuple[Tensor, Tensor]:
        """One level. x [N, 3, H, W], sides even -> low [N, 3, H/2, W/2], details [N, 9, H/2, W/2].

        Args:
            x: Blue, green, red less 128 in lattice units at the first level, else the low-pass of the level above.
            rung: One-hot, [N, rungs].
            unit: Lattice units in a grey level, [N].
            rounded: Whether every step is rounded to the lattice.
        """
        gate, lean, scale, gain = self.conditions(rung, unit)
        floor, rounding = (floor_through, round_through) if rounded else (identity, identity)
        low, details = self.wavelet(colour.forward(x, gate, lean, floor), rung, rounding)
        return low + self.coupling(details, rung, scale, gain, rounding), details

    def inverse(self, low: Tensor, details: Tensor, rung: Tensor, unit: Tensor, rounded: bool) -> Tensor:
        """Undo one level."""
        gate, lean, scale, gain = self.conditions(rung, unit)
        floor, rounding = (floor_through, round_through) if rounded else (identity, identity)
        low = low - self.coupling(details, rung, scale, gain, rounding)
        return colour.inverse(self.wavelet.inverse(low, details, rung, rounding), gate, lean, floor)
