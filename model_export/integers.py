"""Float layers <-> exact integer layers: one set of weights, two ways to run it.

In float mode (training) a layer is an ordinary convolution followed by a clipped ReLU. In exact mode its
inputs, weights and outputs are integers on a dyadic grid, so that float32 computes the same result in any order
of summation, on any device:

    activation a = integer / 2**bits: a signed 10-bit integer (ACTIVATION) or an unsigned byte (BYTE)
    weight     w = integer / 2**shift(channel), |integer| <= WEIGHT_LIMIT, or BYTE_WEIGHT_LIMIT in a ByteLayer
    sum |w| * max|a| + |bias| < 2**24 in units of the accumulator's grid.

A ByteLayer is made for 8-bit kernels, which compute the same integers several times as fast where a processor has them.

Rounding passes gradients straight through, so that exact mode can be trained too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATION_BITS = 6
ACTIVATION_LIMIT = 1023
"""Largest |integer| of an activation: 10 bits, so that TF32's 11 significant bits hold it."""
WEIGHT_LIMIT = 1023
BYTE_BITS = 4
BYTE_LIMIT = 255
BYTE_WEIGHT_LIMIT = 127
ACCUMULATOR_LIMIT = 2**24
SUM_MARGIN = 0.95
"""Share of the accumulator filled before weights are rounded; the rounding needs the rest."""
TOP = ACTIVATION_LIMIT / 2**ACTIVATION_BITS
BYTE_TOP = BYTE_LIMIT / 2**BYTE_BITS


def round_through(x: Tensor) -> Tensor:
    """Round half to even; the gradient is that of the identity."""
    return x + (torch.round(x) - x).detach()


class _Bounded(torch.autograd.Function):
    """Clip whose gradient still passes where it leads back inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.limits = (low, high)
        return torch.clamp(x, cast("Tensor", low), cast("Tensor", high))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        low, high = ctx.limits
        blocked = ((x < low) & (gradient > 0)) | ((x > high) & (gradient < 0))
        return gradient.masked_fill(blocked, 0.0), None, None


def bounded(x: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Clip to [low, high]; outside, only a gradient that leads back inside passes."""
    return _Bounded.apply(x, low, high)


def full_precision(x: Tensor) -> torch.autocast:
    """Float32 whatever surrounds it: for outputs that need more bits than bfloat16 has."""
    return torch.autocast(x.device.type, enabled=False)


def grid_through(x: Tensor, bits: int) -> Tensor:
    """Round to multiples of 2**-bits; the gradient is that of the identity."""
    return round_through(x * 2.0**bits) * 2.0**-bits


class Exactable(nn.Module):
    """A module with a float mode and an exact mode."""

    exact: bool = False

    def set_exact(self, exact: bool) -> None:
        """Switch this module and everything below it."""
        for module in self.modules():
            if isinstance(module, Exactable):
                module.exact = exact

    def activation(self, x: Tensor) -> Tensor:
        """Clipped ReLU; in exact mode rounded to the activation grid."""
        x = F.hardtanh(x, 0.0, TOP)  # its gradient is one pass over memory; clamp's takes five
        return grid_through(x, ACTIVATION_BITS) if self.exact else x

    def byte(self, x: Tensor) -> Tensor:
        """Clipped ReLU; in exact mode rounded to the grid of bytes."""
        x = F.hardtanh(x, 0.0, BYTE_TOP)
        return grid_through(x, BYTE_BITS) if self.exact else x


class ExactConv(Exactable):
    """A convolution whose weights can be made integers; at stride 1 it is zero-padded to keep the size.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        kernel: Odd side of the kernel in samples.
        stride: 1 or 2.
        init: `normal`, `dirac` (identity plus a little noise: a residual layer) or `zeros`.
        bits: Grid of its inputs: ACTIVATION_BITS or BYTE_BITS.
    """

    weight_limit = WEIGHT_LIMIT

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        init: str = "normal",
        bits: int = ACTIVATION_BITS,
    ) -> None:
        super().__init__()
        self.stride, self.kernel, self.bits = stride, kernel, bits
        self.top = BYTE_TOP if bits == BYTE_BITS else TOP
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, kernel, kernel))
        if init == "normal":
            nn.init.kaiming_normal_(self.weight)
        elif init == "dirac":
            nn.init.kaiming_normal_(self.weight)
            with torch.no_grad():
                self.weight.mul_(0.3).add_(nn.init.dirac_(torch.empty_like(self.weight)))

    def bound(self, weight: Tensor | None = None) -> Tensor:
        """Largest |output| of each channel over all inputs in range, in units of its value: float64 [outputs].

        weight: By default the float one.
        """
        kernel = self.weight if weight is None else weight
        return kernel.detach().double().abs().flatten(1).sum(1) * self.top

    def shifts(self, total: Tensor) -> Tensor:
        """Exponent of each output channel's weight grid, as large as both limits allow.

        Args:
            total: Bound of the whole sum this convolution takes part in, per channel, in units of its value.
        """
        largest = self.weight.detach().double().abs().flatten(1).amax(1).clamp_min(2.0**-12)
        by_sum = torch.floor(torch.log2(SUM_MARGIN * ACCUMULATOR_LIMIT / total)) - self.bits
        by_weight = torch.floor(torch.log2((self.weight_limit + 0.49) / largest))
        return torch.minimum(by_sum, by_weight).clamp(max=16)

    def integer_weight(self, total: Tensor) -> Tensor:
        """The weight on its grid, as values (dyadic rationals), differentiable straight through."""
        scale = torch.exp2(self.shifts(total)).to(self.weight.dtype).view(-1, 1, 1, 1)
        return round_through(self.weight * scale) / scale

    def forward(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Convolve x [N, inputs, H, W] with `weight`, by default the float one; add a bias, [outputs]."""
        padding = self.kernel // 2 if self.stride == 1 else 0
        return F.conv2d(x, self.weight if weight is None else weight, bias, self.stride, padding)


class ConditionTable(Exactable):
    """A vector chosen by level and quality: integers interpolated between knots.

    The condition is a row of weights over (level, knot) pairs: the level's part holds a hat function over the
    quality knots in steps of 1/128, or 1 at the lossless knot.

    Args:
        levels: Number of levels.
        knots: Number of knots, the lossless one included.
        outputs: Length of the vector.
    """

    TABLE_BITS = 8
    LIMIT = 64.0
    """Largest |value| in exact mode: LIMIT * 2**TABLE_BITS * 128 < 2**24, the interpolation is exact."""

    def __init__(self, levels: int, knots: int, outputs: int) -> None:
        super().__init__()
        self.common = nn.Parameter(torch.zeros(outputs))
        self.by_level = nn.Parameter(torch.zeros(levels, 1, outputs))
        self.by_knot = nn.Parameter(torch.zeros(1, knots, outputs))
        self.by_both = nn.Parameter(torch.zeros(levels, knots, outputs))

    def table(self) -> Tensor:
        """[levels * knots, outputs]; in exact mode on the grid of 2**-TABLE_BITS."""
        full = (self.common + self.by_level + self.by_knot + self.by_both).flatten(0, 1)
        return grid_through(full.clamp(-self.LIMIT, self.LIMIT), self.TABLE_BITS) if self.exact else full

    def bound(self) -> Tensor:
        """Largest |value| of each output: float64 [outputs]."""
        return self.table().detach().double().abs().amax(0)

    def forward(self, condition: Tensor) -> Tensor:
        """condition [N, levels * knots] -> [N, outputs, 1, 1]; rounded to the table's grid in exact mode."""
        value = condition @ self.table()
        return (grid_through(value, self.TABLE_BITS) if self.exact else value)[:, :, None, None]


class ExactSum(Exactable):
    """Several convolutions of several inputs and a conditional bias, added up in one accumulator.

    Args:
        convs: The convolutions; all give the same number of channels and, on their inputs, the same size.
        table: The bias.
    """

    def __init__(self, convs: list[ExactConv], table: ConditionTable) -> None:
        super().__init__()
        self.convs, self.table = nn.ModuleList(convs), table

    @property
    def terms(self) -> list[ExactConv]:
        """The convolutions."""
        return cast("list[ExactConv]", list(self.convs))

    def total_bound(self) -> Tensor:
        """Largest |sum| of each channel before weights are rounded, float64 [outputs]."""
        return sum((conv.bound() for conv in self.terms), self.table.bound())

    def integer_weights(self) -> list[Tensor]:
        """The weights of all terms on their grids."""
        total = self.total_bound()
        return [conv.integer_weight(total) for conv in self.terms]

    def proven_bound(self) -> int:
        """Largest |accumulator| in units of its finest grid; below 2**24 every partial sum is exact in float32."""
        with torch.no_grad():
            total = self.total_bound()
            value = sum((conv.bound(conv.integer_weight(total)) for conv in self.terms), self.table.bound())
            bits = torch.stack([conv.shifts(total) + conv.bits for conv in self.terms]).amax(0)
            return math.ceil((value * torch.exp2(bits.clamp_min(ConditionTable.TABLE_BITS))).max().item())

    def bias(self, condition: Tensor) -> Tensor:
        """condition [N, levels * knots] -> [N, outputs, 1, 1]."""
        result: Tensor = self.table(condition)
        return result

    def forward(self, inputs: list[Tensor], condition: Tensor) -> Tensor:
        """Add everything up. In exact mode inputs lie on the activation grid."""
        weights: Sequence[Tensor | None] = self.integer_weights() if self.exact else [None] * len(self.convs)
        terms = [conv(x, weight) for conv, x, weight in zip(self.convs, inputs, weights, strict=True)]
        result = self.bias(condition).to(terms[0].dtype)  # in mixed precision nothing is promoted and narrowed again
        for term in terms:
            result = term + result
        return result


class ByteConv(ExactConv):
    """A 3x3 convolution of bytes with weights of one byte."""

    weight_limit = BYTE_WEIGHT_LIMIT

    def __init__(self, inputs: int, outputs: int, init: str = "normal") -> None:
        super().__init__(inputs, outputs, 3, init=init, bits=BYTE_BITS)


class ByteLayer(Exactable):
    """Bytes -> 3x3 convolution, a constant bias, clipped ReLU -> bytes.

    The bias depends on nothing, so that the whole layer is one operation of an 8-bit kernel.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        init: As in ExactConv.
    """

    def __init__(self, inputs: int, outputs: int, init: str = "normal") -> None:
        super().__init__()
        self.conv = ByteConv(inputs, outputs, init)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def total_bound(self) -> Tensor:
        """Largest |sum| of each channel before weights are rounded, float64 [outputs]."""
        return self.conv.bound() + self.bias.detach().double().abs()

    def shifts(self) -> Tensor:
        """Exponent of each channel's weight grid; the sum's is BYTE_BITS larger."""
        return self.conv.shifts(self.total_bound())

    def integer_parts(self) -> tuple[Tensor, Tensor]:
        """Weight and bias on their grids, as values; the bias on that of the sum."""
        unit = torch.exp2(self.shifts() + BYTE_BITS).to(self.bias.dtype)
        return self.conv.integer_weight(self.total_bound()), round_through(self.bias * unit) / unit

    def proven_bound(self) -> int:
        """Largest |accumulator|, in units of its grid."""
        with torch.no_grad():
            weight, bias = self.integer_parts()
            value = self.conv.bound(weight) + bias.double().abs()
            return math.ceil((value * torch.exp2(self.shifts() + BYTE_BITS)).max().item())

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] -> [N, outputs, H, W]."""
        weight, bias = self.integer_parts() if self.exact else (None, self.bias)
        return self.byte(self.conv(x, weight, bias))
