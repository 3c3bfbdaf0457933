"""Details <-> details less what the low-pass foretells: additive coupling steps, each a small exact net.

    details        -= P(low)
    low            += U(details)
    chroma details -= C(luma details, low)

Each net reads integers normalised by the level's low-pass gain, and what it gives is scaled back and rounded to
the lattice, so every step is undone by the same sum with the other sign.

Source: L. Dinh, D. Krueger, Y. Bengio, "NICE: Non-linear Independent Components Estimation", 2014.
"""

import torch
from torch import Tensor

from model_export.flow.colour import Rounding
from model_export.integers import (
    ACTIVATION_BITS,
    TOP,
    ConditionTable,
    Exactable,
    ExactConv,
    ExactSum,
    grid_through,
)

OUTPUT_LIMIT = 64.0
"""Largest |output| of a net before it is scaled back, in grey levels of the normalised low-pass."""
OUTPUT_BITS = 4


class CouplingNet(Exactable):
    """3x3, clipped ReLU, 1x1; the last layer starts at zero.

    Args:
        inputs: Input channels.
        hidden: Hidden channels.
        outputs: Output channels.
        rungs: Number of levels on all lattices; each has biases of its own.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, rungs: int) -> None:
        super().__init__()
        self.first = ExactSum([ExactConv(inputs, hidden, 3)], ConditionTable(rungs, 1, hidden))
        self.last = ExactSum([ExactConv(hidden, outputs, 1, init="zeros")], ConditionTable(rungs, 1, outputs))

    def forward(self, x: Tensor, rung: Tensor) -> Tensor:
        """x [N, inputs, H, W] -> grey levels of the normalised low-pass, in exact mode multiples of 1/16."""
        hidden = self.activation(self.first([x], rung))
        result = (self.last([hidden], rung) * 16.0).clamp(-OUTPUT_LIMIT, OUTPUT_LIMIT)
        return grid_through(result, OUTPUT_BITS) if self.exact else result


class Coupling(Exactable):
    """The three coupling steps of a level."""

    def __init__(self, hidden: int, rungs: int) -> None:
        super().__init__()
        self.predict = CouplingNet(3, hidden, 9, rungs)
        self.update = CouplingNet(9, hidden, 3, rungs)
        self.chroma = CouplingNet(6, hidden, 6, rungs)

    def read(self, x: Tensor, scale: Tensor) -> Tensor:
        """Lattice values as activations: x * scale, clipped; scale turns them into 1/16 of normalised grey levels."""
        scaled = (x * scale).clamp(-TOP, TOP)
        return grid_through(scaled, ACTIVATION_BITS) if self.exact else scaled

    def forward(
        self, low: Tensor, details: Tensor, rung: Tensor, scale: Tensor, gain: Tensor, rounding: Rounding
    ) -> tuple[Tensor, Tensor]:
        """low [N, 3, H, W], details [N, 9, H, W] -> the same, coupled.

        scale and gain [N, 1, 1, 1] turn lattice units into 1/16 normalised grey levels and normalised grey levels
        into lattice units.
        """
        details = details - rounding(self.predict(self.read(low, scale), rung) * gain)
        low = low + rounding(self.update(self.read(details, scale * 2), rung) * gain)
        luma, chroma = of_colours(details, False), of_colours(details, True)
        known = torch.cat([self.read(luma, scale * 2), self.read(low, scale)], 1)
        return low, weave(luma, chroma - rounding(self.chroma(known, rung) * gain))

    def inverse(
        self, low: Tensor, details: Tensor, rung: Tensor, scale: Tensor, gain: Tensor, rounding: Rounding
    ) -> tuple[Tensor, Tensor]:
        """Undo `forward`."""
        luma, chroma = of_colours(details, False), of_colours(details, True)
        known = torch.cat([self.read(luma, scale * 2), self.read(low, scale)], 1)
        details = weave(luma, chroma + rounding(self.chroma(known, rung) * gain))
        low = low - rounding(self.update(self.read(details, scale * 2), rung) * gain)
        return low, details + rounding(self.predict(self.read(low, scale), rung) * gain)


def weave(luma: Tensor, chroma: Tensor) -> Tensor:
    """Three luma and six chroma channels -> nine in band order."""
    return torch.cat([luma.unflatten(1, (3, 1)), chroma.unflatten(1, (3, 2))], 2).flatten(1, 2)


def of_colours(details: Tensor, chroma: bool) -> Tensor:
    """The six chroma or the three luma channels of nine in band order: the reverse of `weave`."""
    return by_colour(details, chroma).flatten(1, 2)


def by_colour(details: Tensor, chroma: bool) -> Tensor:
    """A view of the chroma or luma channels of nine, [N, 3 bands, 2 or 1 colours, H, W]; indices would be copies."""
    return details.unflatten(1, (3, 3))[:, :, 1 if chroma else 0 : 3 if chroma else 1]
