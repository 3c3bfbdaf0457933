"""The sizes and constants a model is built from; everything else follows from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from service.codec.artifact import PRIORS, prior_of_level


@dataclass(frozen=True)
class PriorSize:
    """Sizes of one prior.

    Attributes:
        channels: Width of the trunk.
        layers: 3x3 layers of the trunk after its first one.
        head_channels: Width of the four luma and four chroma heads.
        dequantiser_channels: Width of the dequantiser's layers.
        dequantiser_layers: 3x3 layers of the dequantiser between its first and the one that joins.
        refiner_channels: Width of the dequantiser's refiner; 0: it has none.
        refiner_layers: 3x3 layers of the refiner after its first one.
    """

    channels: int
    layers: int
    head_channels: int
    dequantiser_channels: int
    dequantiser_layers: int
    refiner_channels: int = 0
    refiner_layers: int = 0


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of one model.

    Attributes:
        name: Name a client asks for (`model=`).
        levels: Most levels a picture is split into.
        coupling_channels: Hidden width of the coupling net.
        fine: The finest level's prior.
        middle: That of the next level.
        coarse: That of the level after it.
        coarsest: That of all coarser levels. Together with the coarse one they have a twelfth of the finest's
            coefficients, and at low rates four fifths of the bits, so this is where width is cheapest.
    """

    name: str = "bijou-1"
    levels: int = 6
    coupling_channels: int = 24
    fine: PriorSize = field(default=PriorSize(64, 4, 64, 64, 2))
    middle: PriorSize = field(default=PriorSize(128, 6, 128, 128, 2, 96, 2))
    coarse: PriorSize = field(default=PriorSize(160, 6, 160, 160, 2, 96, 2))
    coarsest: PriorSize = field(default=PriorSize(160, 6, 160, 160, 2, 96, 2))

    @property
    def priors(self) -> list[PriorSize]:
        """Sizes of the sets of priors, finest first."""
        return [getattr(self, name) for name in PRIORS]

    def parent(self, level: int) -> int:
        """Channels that the next coarser level hands on to a level."""
        next_coarser: PriorSize = getattr(self, prior_of_level(level + 1))
        return 2 * next_coarser.channels

    def as_dict(self) -> dict[str, Any]:
        """The configuration as plain values, for checkpoints and manifests."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The reverse of `as_dict`."""
        return cls(**{**values, **{name: PriorSize(**values[name]) for name in PRIORS}})


LARGE = ModelConfig(
    name="bijou-1-large",
    fine=PriorSize(112, 5, 112, 112, 2),
    middle=PriorSize(192, 8, 192, 192, 2, 128, 2),
    coarse=PriorSize(208, 8, 208, 208, 2, 128, 2),
    coarsest=PriorSize(208, 8, 208, 208, 2, 128, 2),
)
"""Nearly three times the arithmetic, for a GPU to train. What is shipped under this name has bijou-1's sizes, with no
channels left out at the two finest levels: so far it is better than any that has these."""

TINY = ModelConfig(
    name="tiny",
    coupling_channels=8,
    fine=PriorSize(8, 1, 8, 8, 1),
    middle=PriorSize(12, 2, 8, 8, 1, 8, 1),
    coarse=PriorSize(16, 1, 8, 12, 1, 8, 1),
    coarsest=PriorSize(12, 1, 8, 8, 1, 8, 1),
)
"""A model small enough for tests."""
