"""Low-pass <-> low-pass and what its details tell of it: an additive coupling step, a small exact net.

    low += U(details)

The net reads integers normalised by the level's low-pass gain, and what it gives is scaled back and rounded to
the lattice, so the step is undone by the same sum with the other sign. Steps that foretell details from the low-pass
or chroma from luma are not worth their time: the prior's means and dequantisers do that (docs/log.md).

Source: L. Dinh, D. Krueger, Y. Bengio, "NICE: Non-linear Independent Components Estimation", 2014.
"""

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
    """The coupling step of a level."""

    def __init__(self, hidden: int, rungs: int) -> None:
        super().__init__()
        self.update = CouplingNet(9, hidden, 3, rungs)

    def read(self, x: Tensor, scale: Tensor) -> Tensor:
        """Lattice values as activations: x * scale, clipped; scale gives eighths of normalised grey levels."""
        scaled = (x * scale).clamp(-TOP, TOP)
        return grid_through(scaled, ACTIVATION_BITS) if self.exact else scaled

    def forward(self, details: Tensor, rung: Tensor, scale: Tensor, gain: Tensor, rounding: Rounding) -> Tensor:
        """details [N, 9, H, W] -> what is added to the low-pass, [N, 3, H, W].

        scale and gain [N, 1, 1, 1] turn lattice units into eighths of normalised grey levels, and these levels
        into lattice units.
        """
        return rounding(self.update(self.read(details, scale), rung) * gain)


def of_colours(details: Tensor, chroma: bool) -> Tensor:
    """The six chroma or the three luma channels of nine in band order."""
    return by_colour(details, chroma).flatten(1, 2)


def by_colour(details: Tensor, chroma: bool) -> Tensor:
    """A view of the chroma or luma channels of nine, [N, 3 bands, 2 or 1 colours, H, W]; indices would be copies."""
    return details.unflatten(1, (3, 3))[:, :, 1 if chroma else 0 : 3 if chroma else 1]
