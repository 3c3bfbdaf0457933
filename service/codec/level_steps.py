"""Steps of pictures of several tiles: one level of one tile, with a margin where the flow needs its neighbours.

Like those of `steps`, each gives what it would give alone, in any company, and again after a batch that failed: what it
is given, it leaves as it is.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self, TypeVar

from service.codec import flow
from service.codec.arrays import Bytes8, Floats, Shorts
from service.codec.artifact import Model
from service.codec.calibration import Said
from service.codec.clock import Clock
from service.codec.entropy import Decoder
from service.codec.prior import kept, restored
from service.codec.quantise import Sides
from service.codec.steps import Step, codes_of, joined
from service.codec.walk import Walk

R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Forward(Step[tuple[Floats, Floats]]):
    """Forward flow of one level: a state [1, 3, H, W] -> low-pass and details, half as high and wide."""

    op: ClassVar[str] = "analyse"
    model: Model
    state: Floats
    level: int
    unit: int

    @property
    def key(self) -> Hashable:
        """Model, lattice, level and size."""
        return self.op, self.model.id, self.unit, self.level, self.state.shape

    @property
    def pixels(self) -> int:
        """Samples of the state."""
        return int(self.state[0, 0].size)

    @classmethod
    def together(cls, steps: Sequence[Self], clock: Clock) -> list[tuple[Floats, Floats]]:
        """As in Step."""
        a = steps[0]
        with clock.room("flow"):
            low, details = flow.forward(joined([s.state for s in steps]), a.model, a.level, a.unit)
        return [(low[i : i + 1], details[i : i + 1]) for i in range(len(steps))]


@dataclass(frozen=True, eq=False)
class Inverse(Step[Floats]):
    """Inverse flow of one level: low-pass and details -> the finer state, [1, 3, *size]."""

    op: ClassVar[str] = "synthesise"
    model: Model
    low: Floats
    details: Floats
    level: int
    unit: int
    size: tuple[int, int]

    @property
    def key(self) -> Hashable:
        """Model, lattice, level and size."""
        return self.op, self.model.id, self.unit, self.level, self.size

    @property
    def pixels(self) -> int:
        """Samples of the finer state."""
        return self.size[0] * self.size[1]

    @classmethod
    def together(cls, steps: Sequence[Self], clock: Clock) -> list[Floats]:
        """As in Step."""
        a = steps[0]
        with clock.room("flow"):
            low, details = joined([s.low for s in steps]), joined([s.details for s in steps])
            finer = flow.inverse(low, details, a.model, a.level, a.unit, a.size)
        return [finer[i : i + 1] for i in range(len(steps))]


@dataclass(frozen=True)
class Place:
    """Where a level's bins are coded.

    Attributes:
        model: With what.
        level: 0 is the finest.
        low: Low-pass of the level as the decoder has it, [1, 3, h, w].
        parent: What the prior of the coarser level handed on, by `prior.kept`; None at the coarsest.
        code: Quality code; None: lossless.
        unit: Lattice units in a grey level.
        inner: Sides where the picture goes on.
        finer: Height and width of the state above the level.
        tied: Whether parities of bins are those of a trellis; never if lossless.
        held: As in `Walk`; decoders do not read it.
        halved: As in `Walk`.
    """

    model: Model
    level: int
    low: Floats
    parent: Bytes8 | None
    code: int | None
    unit: int
    inner: Sides
    finer: tuple[int, int]
    tied: bool = True
    held: bool = True
    halved: bool = False

    @property
    def key(self) -> Hashable:
        """Model, lattice, losslessness, level, sizes and how bins are chosen and coded, not the code."""
        sizes, how = (self.low.shape, self.finer), (self.tied, self.held, self.halved)
        return self.model.id, self.unit, self.code is None, self.level, sizes, how

    @property
    def pixels(self) -> int:
        """Samples of the finer state."""
        return 4 * int(self.low[0, 0].size)


@dataclass(frozen=True, eq=False)
class _AtPlace(Step[R]):
    """What is done at a place; it alone says what can run together."""

    place: Place

    @property
    def key(self) -> Hashable:
        """That of the place."""
        return self.op, self.place.key

    @property
    def pixels(self) -> int:
        """Those of the place."""
        return self.place.pixels


def _walk(places: Sequence[Place], clock: Clock) -> Walk:
    a = places[0]
    codes, inner = codes_of([p.code for p in places]), [p.inner for p in places]
    return Walk(a.model, codes, len(places), a.level + 1, a.unit, clock, inner, a.tied, a.held, a.halved)


@dataclass(frozen=True, eq=False)
class EncodeLevel(_AtPlace[tuple[Floats, Bytes8 | None, list[Said]]]):
    """Details [1, 9, h, w] -> those the decoder will have, what is handed on, and what each pass has to say.

    elsewhere: as in `Walk.encode_level`.
    """

    op: ClassVar[str] = "encode"
    details: Floats
    elsewhere: Shorts | None = None

    @property
    def key(self) -> Hashable:
        """That of the place, and whether it is known what bins cost elsewhere."""
        return self.op, self.place.key, self.elsewhere is None

    @classmethod
    def together(cls, steps: Sequence[Self], clock: Clock) -> list[tuple[Floats, Bytes8 | None, list[Said]]]:
        """As in Step."""
        places = [s.place for s in steps]
        low, parent = joined([p.low for p in places]), restored([p.parent for p in places], places[0].model)
        known = [s.elsewhere for s in steps if s.elsewhere is not None]
        details, handed_on, said = _walk(places, clock).encode_level(
            joined([s.details for s in steps]),
            places[0].level,
            low,
            parent,
            places[0].finer,
            joined(known) if known else None,
        )
        each = zip(kept(handed_on, len(steps)), said, strict=True)
        return [(details[i : i + 1], own, words) for i, (own, words) in enumerate(each)]


@dataclass(frozen=True, eq=False)
class DraftLevel(_AtPlace[tuple[Floats, Bytes8 | None]]):
    """Details [1, 9, h, w] -> those a decoder would have if nothing were priced, and what is handed on."""

    op: ClassVar[str] = "draft"
    details: Floats

    @classmethod
    def together(cls, steps: Sequence[Self], clock: Clock) -> list[tuple[Floats, Bytes8 | None]]:
        """As in Step."""
        places = [s.place for s in steps]
        low, parent = joined([p.low for p in places]), restored([p.parent for p in places], places[0].model)
        details, handed_on = _walk(places, clock).draft_level(
            joined([s.details for s in steps]), places[0].level, low, parent, places[0].finer
        )
        return [(details[i : i + 1], own) for i, own in enumerate(kept(handed_on, len(steps)))]


@dataclass(frozen=True, eq=False)
class DecodeLevel(_AtPlace[tuple[Floats, Bytes8 | None, Decoder]]):
    """Words -> details [1, 9, h, w], what is handed on, and the decoder as it stands after the level."""

    op: ClassVar[str] = "decode"
    decoder: Decoder

    @classmethod
    def together(cls, steps: Sequence[Self], clock: Clock) -> list[tuple[Floats, Bytes8 | None, Decoder]]:
        """As in Step."""
        places, decoders = [s.place for s in steps], [s.decoder.copy() for s in steps]
        low, parent = joined([p.low for p in places]), restored([p.parent for p in places], places[0].model)
        a = places[0]
        details, handed_on = _walk(places, clock).decode_level(a.level, low, parent, a.finer, decoders)
        each = zip(kept(handed_on, len(steps)), decoders, strict=True)
        return [(details[i : i + 1], own, decoder) for i, (own, decoder) in enumerate(each)]
