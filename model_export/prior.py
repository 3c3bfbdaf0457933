"""What the decoder knows -> scale index and mean of each bin, and each bin's reconstruction offset.

    low-pass of this level --+
                             +--> trunk --> features --+--> 4 luma heads --> 4 chroma heads --> dequantiser
    features of the level ---+                         |         ^                 ^                 ^   |
    below (coarser), and                               +-------- bins coded so far at this level ----+   |
    what its dequantiser                                                                                 v
    made of them and its bins                                           offsets, and the parent of the level above

The bins of a level are coded in eight passes: luma in the four phases of 2x2 cells, then chroma in the same four.
A head computes only the phase it codes (its convolutions have stride 2), so eight passes cost as much as two.

Source of the phases: D. He et al., "Checkerboard Context Model for Efficient Learned Image Compression", 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.byte_sum import ByteSum
from model_export.config import PriorSize
from model_export.dequantiser import Dequantiser
from model_export.integers import (
    ACTIVATION_BITS,
    BYTE_BITS,
    TOP,
    ByteLayer,
    ConditionTable,
    Exactable,
    ExactConv,
    ExactSum,
    bounded,
    full_precision,
    grid_through,
)
from model_export.quantiser import KNOTS, put
from service.codec.prior import LUMA_PLANES, PHASES, PLANES, codes_chroma, phase_of

SCALES = 70
"""Number of scale indices."""
LOG2_SCALE_FIRST, LOG2_SCALE_STEP = -4.8, 0.2
"""A scale index i means a logistic of log2 scale LOG2_SCALE_FIRST + i * LOG2_SCALE_STEP, in bins."""
MEAN_BITS = 3
"""Means are multiples of 1/8 bin."""
MEAN_LIMIT = 127.0
EDGE_SCALE = 0.5
"""Edges are read in half steps: the activation range covers 32 steps."""
LOG2_E = 1.4426950408889634
SMOOTHING = (1.0, 4.0, 6.0, 4.0, 1.0)
LINEAR_BITS = 3
"""Heads also read bins as they are, in units of 2**LINEAR_BITS, clipped like all they read of bins."""
PLANE_LIMIT = 127
"""Largest |integer| of what is read of a bin, in units of bytes: a signed byte."""
PLANE_TOP = PLANE_LIMIT / 2**BYTE_BITS


def squash(bins: Tensor, exact: bool) -> Tensor:
    """sign * log2(1 + |bin|): how heads read bins; a table of integers in the codec."""
    value = torch.sign(bins) * torch.log2(1 + bins.abs()).clamp_max(PLANE_TOP)
    return torch.round(value * 2**BYTE_BITS) / 2**BYTE_BITS if exact else value


def planes_of(bins: Tensor, exact: bool) -> Tensor:
    """Bins of one colour [N, C, H, W] -> 3 C planes: squashed, their size, linear."""
    squashed = squash(bins, exact)
    return torch.cat([squashed, squashed.abs(), (bins * 2.0**-LINEAR_BITS).clamp(-PLANE_TOP, PLANE_TOP)], 1)


class Known:
    """The bins coded so far at one level, as heads read them.

    Args:
        size: Number of samples, height and width of the level, both even.
        exact: Whether values lie on the grid of bytes.
        device: Where the planes live.
    """

    def __init__(self, size: tuple[int, int, int], exact: bool, device: torch.device) -> None:
        n, height, width = size
        self.exact = exact
        self.bins = torch.zeros(n, 9, height, width, device=device)
        self.planes = torch.zeros(n, PLANES, height, width, device=device)

    def learn(self, number: int, bins: Tensor, moved: Tensor | None = None) -> None:
        """Take in the bins of a pass, [N, bands, H/2, W/2]; moved: what is added to their planes, for gradients."""
        row, column = phase_of(number)
        planes = slice(LUMA_PLANES, None) if codes_chroma(number) else slice(LUMA_PLANES)
        self.planes = self.planes.clone()  # earlier passes keep what they read, for their gradients
        put(self.bins, number, bins)
        own = planes_of(bins, self.exact)
        self.planes[:, planes, row::2, column::2] = own if moved is None else own + moved

    def seen_by(self, number: int) -> Tensor | None:
        """The planes a pass reads; None for the first."""
        if number == 0:
            return None
        return self.planes[:, :LUMA_PLANES] if number < 4 else self.planes


class Trunk(Exactable):
    """Low-pass, its edges and what the coarser level hands on -> features.

    Args:
        size: Sizes.
        levels: Most levels of a picture.
        parent: Channels the coarser level hands on.
    """

    smoothing: Tensor

    def __init__(self, size: PriorSize, levels: int, parent: int) -> None:
        super().__init__()
        width = size.channels
        kernel = torch.tensor(SMOOTHING)
        self.register_buffer("smoothing", (kernel[:, None] * kernel / 256).expand(3, 1, 5, 5).clone(), persistent=False)
        self.first = ExactSum([ExactConv(6, width, 3)], ConditionTable(levels, KNOTS, width))
        self.carry = ExactConv(parent, 4 * width, 1, init="zeros", bits=BYTE_BITS)
        self.rest = nn.ModuleList(ByteLayer(width, width, "dirac") for _ in range(size.layers))

    @property
    def layers(self) -> list[ByteLayer]:
        """All layers after the first."""
        return cast("list[ByteLayer]", list(self.rest))

    @property
    def width(self) -> int:
        """Channels of the features."""
        last = self.layers[-1].conv if self.rest else self.first.terms[0]
        return int(last.weight.shape[0])

    def read(self, low: Tensor, low_scale: Tensor, edge_scale: Tensor) -> Tensor:
        """Low-pass in lattice units -> its value and its edges as activations, [N, 6, H, W].

        low_scale [N, 1, 1, 1] turns lattice units into 1/16 of normalised grey levels, edge_scale [N, 3, 1, 1]
        lattice units into half steps.
        """
        smooth = F.conv2d(F.pad(low, (2, 2, 2, 2), mode="replicate"), self.smoothing, groups=3)
        value, edges = low * low_scale, low - smooth
        if self.exact:
            edges = torch.round(edges)
        value, edges = value.clamp(-TOP, TOP), (edges * edge_scale).clamp(-TOP, TOP)
        both = torch.cat([value, edges], 1)
        return grid_through(both, ACTIVATION_BITS) if self.exact else both

    def total_bound(self) -> Tensor:
        """Largest |sum| of each channel of the first layer, the carried features included."""
        return self.first.total_bound() + self.carry.bound().view(-1, 4).amax(1)

    def integer_weights(self) -> list[Tensor]:
        """Weights of the first layer and of the carry on their grids."""
        total = self.total_bound()
        return [self.first.terms[0].integer_weight(total), self.carry.integer_weight(total.repeat_interleave(4))]

    def forward(self, read: Tensor, parent: Tensor, condition: Tensor) -> Tensor:
        """What `read` gave, and what the coarser level hands on, [N, parent, ceil(H/2), ceil(W/2)] -> features."""
        weights: Sequence[Tensor | None] = self.integer_weights() if self.exact else [None, None]
        carried = F.pixel_shuffle(self.carry(parent, weights[1]), 2)[:, :, : read.shape[2], : read.shape[3]]
        x = self.first.terms[0](read, weights[0]) + self.first.table(condition)
        x = self.byte(x + carried)
        for layer in self.layers:
            x = layer(x)
        return x


class Head(Exactable):
    """Features and known bins -> mean and scale index of the bins of one phase and colour.

    Args:
        size: Sizes.
        levels: Most levels of a picture.
        bands: Bands it codes.
        phase: Which phase of the 2x2 cell.
        planes: Planes of known bins it reads; 0 for the very first pass, which knows none.
        kernel: Side of the window it reads them in.
    """

    def __init__(self, size: PriorSize, levels: int, bands: int, phase: int, planes: int, kernel: int) -> None:
        super().__init__()
        self.row, self.column = PHASES[phase]
        width = size.head_channels
        reads = [ExactConv(size.channels, width, 1, bits=BYTE_BITS)]
        if planes:
            reads.append(ExactConv(planes, width, kernel, stride=2, bits=BYTE_BITS))
        self.bands = bands
        self.first = ByteSum(reads, ConditionTable(levels, KNOTS, width))
        self.second = ByteSum(
            [ExactConv(width, width, 1, init="dirac", bits=BYTE_BITS)], ConditionTable(levels, KNOTS, width)
        )
        self.last = ExactSum(
            [ExactConv(width, 2 * bands, 1, init="zeros", bits=BYTE_BITS)], ConditionTable(levels, KNOTS, 2 * bands)
        )

        before, after = kernel // 2, kernel // 2 - 1
        self.pads = (before - self.column, after + self.column, before - self.row, after + self.row)

    def forward(self, features: Tensor, planes: Tensor | None, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Features of its phase [N, width, H/2, W/2], known planes [N, planes, H, W], H, W even -> mean, log2 scale.

        Both [N, bands, H/2, W/2], in bins; in exact mode multiples of 1/8 bin and of LOG2_SCALE_STEP.
        """
        inputs = [features]
        if planes is not None:
            inputs.append(F.pad(planes, self.pads))
        x = self.byte(self.first(inputs, condition))
        x = self.byte(self.second([x], condition))
        with full_precision(x):
            x = self.last([x.float()], condition)
        mean, index = x[:, : self.bands], x[:, self.bands :] * 4.0 + 24.0
        mean = bounded(mean, -MEAN_LIMIT, MEAN_LIMIT)
        index = bounded(index, 0.0, SCALES - 1.0)
        if self.exact:
            mean, index = grid_through(mean, MEAN_BITS), grid_through(index, 0)
        return mean, LOG2_SCALE_FIRST + LOG2_SCALE_STEP * index


class Prior(Exactable):
    """Trunk, heads and dequantiser: everything the decoder computes about a level before the inverse flow.

    Args:
        size: Sizes.
        levels: Most levels of a picture.
        parent: Channels the coarser level hands on.
        served: Levels it serves.
    """

    def __init__(self, size: PriorSize, levels: int, parent: int, served: range) -> None:
        super().__init__()
        self.parent = parent
        self.trunk = Trunk(size, levels, parent)
        self.luma = nn.ModuleList(Head(size, levels, 3, phase, LUMA_PLANES if phase else 0, 5) for phase in range(4))
        self.chroma = nn.ModuleList(Head(size, levels, 6, phase, PLANES, 3) for phase in range(4))
        self.dequantiser = Dequantiser(size, levels)
        for module in self.modules():
            if isinstance(module, ByteSum):
                module.served = slice(served.start * KNOTS, served.stop * KNOTS)

    @property
    def heads(self) -> list[Head]:
        """Luma's and chroma's heads, in the order of their passes."""
        return cast("list[Head]", [*self.luma, *self.chroma])


def by_phase(features: Tensor) -> list[Tensor]:
    """Features [N, C, H, W], H and W even -> those of each phase, four of [N, C, H/2, W/2]."""
    cells = [half.unbind(4) for half in features.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).unbind(3)]
    return [cells[row][column].contiguous(memory_format=torch.channels_last) for row, column in PHASES]


def logistic_bits(value: Tensor, mean: Tensor, log2_scale: Tensor) -> Tensor:
    """Bits of a bin under a logistic of the given mean and scale: -log2 of its mass within half a bin.

    Written as a product of three factors, exact far out in the tails:
    S(a) - S(b) = S(a) S(-b) (1 - exp(b - a)) with S the sigmoid.
    """
    distance, inverse = (value - mean).abs(), torch.exp2(-log2_scale)
    upper, lower = (0.5 - distance) * inverse, (-0.5 - distance) * inverse
    nats = F.softplus(-upper) + F.softplus(lower) - torch.log(-torch.expm1(-inverse))
    return nats * LOG2_E
