"""What the decoder knows of a level -> each bin's reconstruction offset, and what the finer level reads of it all."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from model_export.byte_sum import ByteSum
from model_export.config import PriorSize
from model_export.integers import (
    BYTE_BITS,
    ByteLayer,
    ConditionTable,
    Exactable,
    ExactConv,
    ExactSum,
    bounded,
    full_precision,
    grid_through,
)
from model_export.quantiser import KNOTS
from service.codec.prior import PLANES


class Reader(Exactable):
    """Bytes and all bins of a level -> bytes, through 3x3 layers.

    The layers begin at random: as identities, like those of the trunk, they learned a third as much in the same steps.

    Args:
        inputs: Channels of bytes.
        width: Channels of its layers.
        layers: 3x3 layers after the first.
        levels: Most levels of a picture.
    """

    def __init__(self, inputs: int, width: int, layers: int, levels: int) -> None:
        super().__init__()
        self.first = ByteSum(
            [ExactConv(inputs, width, 1, bits=BYTE_BITS), ExactConv(PLANES, width, 3, bits=BYTE_BITS)],
            ConditionTable(levels, KNOTS, width),
        )
        self.rest = nn.ModuleList(ByteLayer(width, width) for _ in range(layers))

    @property
    def layers(self) -> list[ByteLayer]:
        """The layers after the first."""
        return cast("list[ByteLayer]", list(self.rest))

    def read(self, seen: Tensor, planes: Tensor, condition: Tensor) -> Tensor:
        """Bytes [N, inputs, H, W] and planes of all bins [N, 27, H, W] -> [N, width, H, W]."""
        x = self.byte(self.first([seen, planes], condition))
        for layer in self.layers:
            x = layer(x)
        return x


class Dequantiser(Reader):
    """Features and all bins of a level -> offset of each reconstruction point within its bin, and what is handed on.

    At low rates nine tenths of the distortion are coefficients in the zero bin: this net foretells what it can of
    them from the decoded low-pass and the bins around. What it hands on serves the finer level's rate; where there is
    a refiner, it reads that and has layers for the offsets alone.

    Args:
        size: Sizes.
        levels: Most levels of a picture.
    """

    def __init__(self, size: PriorSize, levels: int) -> None:
        super().__init__(size.channels, size.dequantiser_channels, size.dequantiser_layers, levels)
        trunk, refined = size.channels, size.refiner_channels
        self.join: ByteLayer | None = ByteLayer(trunk + size.dequantiser_channels, trunk)
        self.refiner = Reader(2 * trunk, refined, size.refiner_layers, levels) if refined else None
        reads = [ExactConv(width, 9, 1, init="zeros", bits=BYTE_BITS) for width in (trunk, refined) if width]
        self.last = ExactSum(reads, ConditionTable(levels, KNOTS, 9))

    def forward(self, features: Tensor, planes: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, width, H, W], planes [N, 27, H, W] -> offsets [N, 9, H, W] in (-1, 1), half bins, and a parent.

        The parent, [N, 2 width, H, W], is for the finer level's trunk: the features, and what they and the bins gave,
        unless that never fires (`silent`).
        """
        parent = features
        if self.join is not None:
            joined = self.join(torch.cat([features, self.read(features, planes, condition)], 1))
            parent = torch.cat([features, joined], 1)
        return self.offsets(parent, planes, condition), parent

    def offsets(self, parent: Tensor, planes: Tensor, condition: Tensor) -> Tensor:
        """The offsets alone, from a parent that is known already."""
        reads = [] if self.join is None else [parent[:, -len(self.join.bias) :]]
        if self.refiner is not None:
            reads.append(self.refiner.read(parent, planes, condition))
        with full_precision(parent):
            offset = self.last([x.float() for x in reads], condition)
        offset = bounded(offset, -127 / 128, 127 / 128)
        return grid_through(offset, 7) if self.exact else offset
