"""Tile steps: the units of work that run graphs, and who runs them.

    pipeline -> TileRunner.run(step) -> Step.together([step, ...]) -> tile

A step is one tile through one operation. Steps of one key can run together, in lockstep, and give what each
would give alone. `DIRECT` runs each at once where it is asked for; a service passes a runner that forms batches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Floats, Number
from service.codec.artifact import Model
from service.codec.clock import Clock
from service.codec.tile import CodedTile, analyse, decode_tiles, draft_tiles, encode_tiles
from service.codec.walk import Latent

R = TypeVar("R")


class Step(ABC, Generic[R]):
    """One tile's share of work."""

    op: ClassVar[str]
    """`analyse`, `encode`, `draft`, `decode` or `synthesise`."""

    @property
    @abstractmethod
    def key(self) -> Hashable:
        """Steps of equal keys can run together."""

    @property
    @abstractmethod
    def pixels(self) -> int:
        """Pixels of the tile that are worked on."""

    @classmethod
    @abstractmethod
    def together(cls, steps: Sequence[Self], clock: Clock) -> list[R]:
        """Run steps of one key; results in their order, the same as one by one."""


class TileRunner(Protocol):
    """Who runs tile steps."""

    def run(self, step: Step[R], clock: Clock) -> R:
        """Run a step, perhaps with others; its errors pass through. The clock gets the time spent in each room."""


class Direct:
    """Runs each step alone, at once, in the calling thread."""

    def run(self, step: Step[R], clock: Clock) -> R:
        """As in TileRunner."""
        return type(step).together([step], clock)[0]


DIRECT = Direct()


@dataclass(frozen=True)
class Run:
    """What stays the same through one encode or decode: the model, who runs its steps, and where time goes."""

    model: Model
    runner: TileRunner
    clock: Clock

    def step(self, step: Step[R]) -> R:
        """Run a step; its errors pass through."""
        return self.runner.run(step, self.clock)


@dataclass(frozen=True, eq=False)
class Analyse(Step[Latent]):
    """Forward flow of a tile: planes [1, 3, H, W] on the lattice of `unit` -> latent; chroma: as in `tile.analyse`."""

    op: ClassVar[str] = "analyse"
    model: Model
    planes: Floats
    unit: int
    chroma: Floats | None = None

    @property
    def key(self) -> Hashable:
        """Model, lattice, size and whether chroma comes apart."""
        return self.op, self.model.id, self.unit, self.planes.shape, self.chroma is None

    @property
    def pixels(self) -> int:
        """Pixels of the tile."""
        return int(self.planes[0, 0].size)

    @classmethod
    def together(cls, steps: Sequence[Self], clock: Clock) -> list[Latent]:
        """As in Step."""
        first, chroma = steps[0], [s.chroma for s in steps if s.chroma is not None]
        planes = joined([s.planes for s in steps])
        return _split(analyse(planes, first.model, first.unit, clock, joined(chroma) if chroma else None))


@dataclass(frozen=True, eq=False)
class _OfLatent(Step[R]):
    """What is done with the latent of a tile."""

    model: Model
    latent: Latent

    @property
    def pixels(self) -> int:
        """Pixels of the tile."""
        return self.latent.size[0] * self.latent.size[1]


@dataclass(frozen=True, eq=False)
class Encode(_OfLatent[CodedTile]):
    """Latent of a tile -> its parts at a quality code, None: lossless; tied, held: as in `tile.encode_tiles`."""

    op: ClassVar[str] = "encode"
    code: int | None
    tied: bool = True
    held: bool = True

    @property
    def key(self) -> Hashable:
        """Model, lattice, losslessness, size and how bins are chosen, not the code."""
        chosen = self.tied, self.held, bool(self.latent.elsewhere), self.latent.halved
        return self.op, self.model.id, self.latent.unit, self.code is None, self.latent.size, chosen

    @classmethod
    def together(cls, steps: Sequence[Self], clock: Clock) -> list[CodedTile]:
        """As in Step."""
        latent = _merged([s.latent for s in steps])
        first = steps[0]
        codes = codes_of([s.code for s in steps])
        return encode_tiles(latent, first.model, codes, clock, tied=first.tied, held=first.held)


@dataclass(frozen=True, eq=False)
class Draft(_OfLatent[Floats]):
    """Latent of a tile -> planes as a decoder would have them, nothing priced; as `tile.draft_tiles`."""

    op: ClassVar[str] = "draft"
    code: int

    @property
    def key(self) -> Hashable:
        """Model, lattice and size, not the code."""
        return self.op, self.model.id, self.latent.unit, self.latent.size

    @classmethod
    def together(cls, steps: Sequence[Self], clock: Clock) -> list[Floats]:
        """As in Step."""
        latent = _merged([s.latent for s in steps])
        planes = draft_tiles(latent, steps[0].model, [s.code for s in steps], clock)
        return [planes[i : i + 1] for i in range(len(steps))]


@dataclass(frozen=True, eq=False)
class Decode(Step[tuple[Floats, Latent]]):
    """First parts of a tile -> planes, or a low-pass, [1, 3, h, w], and the latent; as `tile.decode_tiles`."""

    op: ClassVar[str] = "decode"
    model: Model
    parts: tuple[bytes, ...]
    code: int | None
    size: tuple[int, int]
    unit: int
    stop: int
    tied: bool = True
    halved: bool = False

    @property
    def key(self) -> Hashable:
        """Model, lattice, losslessness, size, how far it goes, and how bins are coded; not the code."""
        how = self.stop, len(self.parts), self.tied, self.halved
        return self.op, self.model.id, self.unit, self.code is None, self.size, *how

    @property
    def pixels(self) -> int:
        """Pixels of what comes out."""
        height, width = (-(-side >> self.stop) for side in self.size)
        return height * width

    @classmethod
    def together(cls, steps: Sequence[Self], clock: Clock) -> list[tuple[Floats, Latent]]:
        """As in Step."""
        a, codes = steps[0], codes_of([s.code for s in steps])
        parts, how = [s.parts for s in steps], (a.size, a.unit, a.stop, clock, a.tied, a.halved)
        planes, latent = decode_tiles(parts, a.model, codes, *how)
        return [(planes[i : i + 1], own) for i, own in enumerate(_split(latent))]


def codes_of(codes: Sequence[int | None]) -> list[int] | None:
    """Quality codes of several tiles; None if they are lossless."""
    given = [code for code in codes if code is not None]
    return given or None


def joined(tiles: Sequence[NDArray[Number]]) -> NDArray[Number]:
    """[1, ...] each -> [N, ...]; a single one is not copied."""
    return tiles[0] if len(tiles) == 1 else np.concatenate(tiles)


def _merged(latents: Sequence[Latent]) -> Latent:
    """Latents of one tile each, alike in size and lattice -> one of N tiles."""
    first = latents[0]
    if len(latents) == 1:
        return first
    details, lows = _levels([own.details for own in latents]), _levels([own.lows for own in latents])
    elsewhere = _levels([own.elsewhere for own in latents])
    low = joined([own.low for own in latents])
    return Latent(low, details, lows, first.size, first.unit, elsewhere, first.halved)


def _levels(tiles: Sequence[tuple[NDArray[Number], ...]]) -> tuple[NDArray[Number], ...]:
    return tuple(joined(level) for level in zip(*tiles, strict=True))


def _split(latent: Latent) -> list[Latent]:
    """The reverse of `_merged`; levels that were not decoded stay empty."""

    def one(index: int) -> Latent:
        details, lows = (tuple(level[index : index + 1] for level in some) for some in (latent.details, latent.lows))
        elsewhere = tuple(level[index : index + 1] for level in latent.elsewhere)
        low = latent.low[index : index + 1]
        return Latent(low, details, lows, latent.size, latent.unit, elsewhere, latent.halved)

    return [one(index) for index in range(len(latent.low))]
