"""Sums of several layers of bytes as one: what heads and dequantisers begin with.

An 8-bit kernel adds up nothing but products of bytes. So the inputs of such a sum are joined, and so is what it is told
of level and quality: channels that are the same everywhere, whose weights are the bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model_export.integers import (
    ACCUMULATOR_LIMIT,
    BYTE_BITS,
    BYTE_WEIGHT_LIMIT,
    SUM_MARGIN,
    ConditionTable,
    ExactConv,
    ExactSum,
    round_through,
)

CONDITION_BITS = 7
"""A condition is read in units of 2**-CONDITION_BITS, the finest there are (`ConditionTable`)."""
ONE = 2.0 ** (CONDITION_BITS - BYTE_BITS)
"""What a condition of 1 is as an activation."""


@dataclass(frozen=True)
class WholeSum:
    """A ByteSum in whole numbers, float64.

    Attributes:
        kernels: Of its convolutions, as bytes.
        condition: Weights of the condition's channels, [outputs, rows], as bytes.
        middle: What is added besides, in units of products, [outputs].
        shifts: Sums of products, over 2**shifts, are what the layer gives before it is cut off and rounded to a byte.
    """

    kernels: list[Tensor]
    condition: Tensor
    middle: Tensor
    shifts: Tensor


class ByteSum(ExactSum):
    """An ExactSum whose inputs are bytes, or fit into signed ones, and whose weights are bytes in one unit.

    The bias is the middle of what it can be for the levels that are served, and a difference from it for each of their
    rows of the table, a byte as well.

    Args:
        convs: The convolutions, all of inputs on the grid of bytes.
        table: The bias.

    Attributes:
        served: Rows of the table that are ever asked for.
    """

    def __init__(self, convs: list[ExactConv], table: ConditionTable) -> None:
        super().__init__(convs, table)
        self.served = slice(None)
        for conv in convs:
            conv.weight_limit = BYTE_WEIGHT_LIMIT

    def _bias(self) -> tuple[Tensor, Tensor]:
        """Middle of the bias, [outputs], and differences from it, [rows served, outputs]; not rounded."""
        table = self.table.table()[self.served]
        middle = (table.amax(0) + table.amin(0)) / 2
        return middle, table - middle

    def shifts(self) -> Tensor:
        """Exponent of each output channel's weight grid; that of the sum is BYTE_BITS larger."""
        each = [conv.weight.detach().abs().flatten(1).amax(1) for conv in self.terms]
        largest = torch.stack([*each, self._bias()[1].detach().abs().amax(0) / ONE]).amax(0).double()
        by_weight = torch.floor(torch.log2((BYTE_WEIGHT_LIMIT + 0.49) / largest.clamp_min(2.0**-12)))
        by_sum = torch.floor(torch.log2(SUM_MARGIN * ACCUMULATOR_LIMIT / self.total_bound())) - BYTE_BITS
        return torch.minimum(by_sum, by_weight).clamp(max=16)

    def integer_weights(self) -> list[Tensor]:
        """The weights of all terms on their common grid."""
        scale = torch.exp2(self.shifts()).to(self.terms[0].weight.dtype).view(-1, 1, 1, 1)
        return [round_through(conv.weight * scale) / scale for conv in self.terms]

    def integer_bias(self) -> tuple[Tensor, Tensor]:
        """As `_bias`, on the grids of sums and of what a condition of 1 adds to them."""
        middle, differences = self._bias()
        unit = torch.exp2(self.shifts() + BYTE_BITS).to(middle.dtype)
        coarse = unit / 2**CONDITION_BITS
        limited = (differences * coarse).clamp(-BYTE_WEIGHT_LIMIT, BYTE_WEIGHT_LIMIT)
        return round_through(middle * unit) / unit, round_through(limited) / coarse

    def bias(self, condition: Tensor) -> Tensor:
        """condition [N, levels * knots], of a level that is served -> [N, outputs, 1, 1]."""
        if not self.exact:
            return super().bias(condition)
        return (condition @ self.rows())[:, :, None, None]

    def rows(self) -> Tensor:
        """The bias in exact mode for each row of the table, [levels * knots, outputs]; the middle if not served."""
        middle, differences = self.integer_bias()
        rows = middle.expand(self.table.by_both.flatten(0, 1).shape).clone()
        rows[self.served] = middle + differences
        return rows

    def proven_bound(self) -> int:
        """Largest |accumulator|, in units of its grid."""
        with torch.no_grad():
            value = sum((conv.bound(weight) for conv, weight in zip(self.terms, self.integer_weights(), strict=True)))
            middle, differences = self.integer_bias()
            value = value + middle.double().abs() + differences.double().abs().amax(0)
            return int(torch.ceil(value * torch.exp2(self.shifts() + BYTE_BITS)).max())

    @torch.no_grad()
    def whole(self) -> WholeSum:
        """Everything as whole numbers."""
        shifts = self.shifts()
        unit = torch.exp2(shifts)
        middle, differences = (own.double() for own in self.integer_bias())
        return WholeSum(
            [weight.double() * unit.view(-1, 1, 1, 1) for weight in self.integer_weights()],
            differences.T * (unit / ONE)[:, None],
            middle * unit * 2**BYTE_BITS,
            shifts,
        )
