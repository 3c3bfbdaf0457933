"""The sizes and constants a model is built from; everything else follows from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class PriorSize:
    """Sizes of one prior.

    Attributes:
        channels: Width of the trunk.
        layers: 3x3 layers of the trunk after its first one.
        head_channels: Width of the four luma and four chroma heads.
        dequantiser_channels: Width of the dequantiser's layers.
        dequantiser_layers: 3x3 layers of the dequantiser between its first and the one that joins.
    """

    channels: int
    layers: int
    head_channels: int
    dequantiser_channels: int
    dequantiser_layers: int


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of one model.

    Attributes:
        name: Name a client asks for (`model=`).
        levels: Most levels a picture is split into.
        coupling_channels: Hidden width of the coupling nets.
        fine: The finest level's prior.
        coarse: That of all coarser levels. Together they have a third of the finest's coefficients, and at low rates
            nine tenths of the bits, so this is where width is cheapest.
    """

    name: str = "bijou-1"
    levels: int = 6
    coupling_channels: int = 24
    fine: PriorSize = field(default=PriorSize(64, 4, 64, 64, 2))
    coarse: PriorSize = field(default=PriorSize(128, 6, 128, 128, 2))

    @property
    def parent(self) -> int:
        """Channels handed on by a coarser level."""
        return 2 * self.coarse.channels

    def as_dict(self) -> dict[str, Any]:
        """The configuration as plain values, for checkpoints and manifests."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The reverse of `as_dict`."""
        return cls(**{**values, **{name: PriorSize(**values[name]) for name in ("fine", "coarse")}})


TINY = ModelConfig(name="tiny", coupling_channels=8, fine=PriorSize(8, 1, 8, 8, 1), coarse=PriorSize(12, 2, 8, 8, 1))
"""A model small enough for tests."""
