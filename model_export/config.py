"""The sizes and constants a model is built from; everything else follows from them."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of one model.

    Attributes:
        name: Name a client asks for (`model=`).
        levels: Most levels a picture is split into.
        trunk_channels: Width of the prior's trunk.
        trunk_layers: 3x3 layers of the finest level's trunk after its first one.
        coarse_layers: The same of the trunk of all coarser levels.
        head_channels: Width of the four luma and four chroma heads.
        dequantiser_layers: 3x3 layers of the dequantiser between its first and the one that joins.
        coupling_channels: Hidden width of the coupling nets.
    """

    name: str = "bijou-1"
    levels: int = 6
    trunk_channels: int = 64
    trunk_layers: int = 4
    coarse_layers: int = 6
    head_channels: int = 64
    dequantiser_layers: int = 2
    coupling_channels: int = 24

    def as_dict(self) -> dict[str, int | str]:
        """The configuration as plain values, for checkpoints and manifests."""
        return asdict(self)


TINY = ModelConfig(
    name="tiny",
    trunk_channels=8,
    trunk_layers=1,
    coarse_layers=2,
    head_channels=8,
    dequantiser_layers=1,
    coupling_channels=8,
)
"""A model small enough for tests."""
