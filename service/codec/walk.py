"""One level of N tiles <-> the symbols of their parts: prior -> quantise -> entropy -> dequantise -> inverse flow.

Tiles of one size walk in lockstep, each at a quality code of its own: every graph runs once for all of them,
quantiser and entropy coder run tile by tile. Graphs are exact, so company changes no byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.codec import flow
from service.codec.arrays import Floats, Integers, Number, Shorts
from service.codec.artifact import Model
from service.codec.calibration import Calibrated, Calibration, Said
from service.codec.centroids import NO_CENTROIDS, Centroids
from service.codec.choice import Values
from service.codec.clock import Clock
from service.codec.coder_tables import Tables
from service.codec.entropy import NO_CHECKS, Decoder
from service.codec.errors import CorruptStreamError
from service.codec.feedback import Feedback
from service.codec.passes import chosen, take_pass
from service.codec.prior import CHROMA, LUMA, PASSES, PHASES, LevelPrior, codes_chroma, place, select
from service.codec.quantise import STATE_LIMIT, STEP_UNIT, Sides, Steps, dequantise, drafted, faded
from service.codec.trellis import Trellis

LOW, DETAILS = slice(0, 3), slice(3, 12)
"""The low-pass's and the details' bands, out of a level's twelve."""


@dataclass(frozen=True)
class Latent:
    """N tiles of one size after the forward flow, in lattice units.

    Attributes:
        low: Coarsest low-pass, [N, 3, h, w].
        details: Nine detail channels of each level, finest first, [N, 9, h, w].
        lows: Low-pass below each level, finest first, which lossless coding reads; empty on the lossy lattice.
        size: Height and width of a tile.
        unit: Lattice units in a grey level.
        elsewhere: What bins cost elsewhere, as in `Values`, of each level, finest first, [N, 9, h, w]; empty: not
            known.
        halved: Whether chroma is known to have no details at the finest level.
    """

    low: Floats
    details: tuple[Floats, ...]
    lows: tuple[Floats, ...]
    size: tuple[int, int]
    unit: int
    elsewhere: tuple[Shorts, ...] = ()
    halved: bool = False

    def costs_elsewhere(self, level: int) -> Shorts | None:
        """What bins of a level cost elsewhere, [N, 9, h, w]; None: not known."""
        return self.elsewhere[level] if self.elsewhere else None


@dataclass(frozen=True)
class Walk:
    """What both directions share.

    Attributes:
        model: What codes.
        codes: Quality code of each tile; None: lossless, all of them.
        count: Number of tiles.
        levels: Levels of the picture they are of.
        unit: Lattice units in a grey level.
        clock: Where time goes.
        inner: Sides of each tile where the picture goes on, and its flow runs across; by default none.
        tied: Whether parities of bins are those of a trellis; never if lossless.
        held: Whether the encoder leaves alone what a decoder may have put where it lies.
        halved: Whether chroma is known to have no details at the finest level.
    """

    model: Model
    codes: list[int] | None
    count: int
    levels: int
    unit: int
    clock: Clock
    inner: Sequence[Sides] | None = None
    tied: bool = True
    held: bool = True
    halved: bool = False

    def passes(self, level: int) -> range:
        """Those that are coded."""
        return range(len(PHASES) if self.halved and level == 0 else PASSES)

    def tables(self) -> list[Tables]:
        """The coder's tables for each tile."""
        codes: Sequence[int | None] = [None] * self.count if self.codes is None else self.codes
        return [self.model.tables.entropy_of(code) for code in codes]

    def low_steps(self) -> list[Steps]:
        """How each tile's coarsest low-pass is quantised: the nearest bin, points in its middle."""
        deepest = max(self.levels - 1, 0)
        middle = np.full(3, 32, np.int32)
        return [replace(steps.channels(LOW), outward=0, reach=middle) for steps in self.steps(deepest)]

    def encode_level(
        self,
        values: Floats,
        level: int,
        low: Floats,
        parent: ort.OrtValue | None,
        finer: tuple[int, int],
        elsewhere: Shorts | None = None,
    ) -> tuple[Floats, ort.OrtValue | None, list[list[Said]]]:
        """Choose a level's bins.

        Args:
            values: The level's details, [N, 9, h, w].
            level: 0 is the finest.
            low: Low-pass of the level as the decoder has it, [N, 3, h, w].
            parent: What the prior of the coarser level handed on.
            finer: Height and width of the state above the level.
            elsewhere: What the level's bins cost elsewhere, as in `Values`, [N, 9, h, w]; None: not known.

        Returns:
            The details as the decoder will have them, what this level's prior hands on to the finer one, and what each
            pass of each tile has to say: for `write_level`.
        """
        with self.clock.room("prior"):
            prior = LevelPrior(self.model, low, parent, level, self.codes, self.unit, finer)
        with self.clock.room("flow"):
            details, bins = integers(values), np.zeros(values.shape, np.int32)
        steps, tables = self.steps(level), self.tables()
        with self.clock.room("flow"):
            feedback = self._feedback(details, level, steps)
        luma, chroma = ([own.channels([3 + c for c in bands]) for own in steps] for bands in (LUMA, CHROMA))
        said: list[list[Said]] = [[] for _ in steps]
        centroids = self._centroids()
        for number in self.passes(level):
            with self.clock.room("prior"):
                means, scales = prior.said(number)
            with self.clock.room("flow"):
                latents, own_steps = select(details, number), chroma if codes_chroma(number) else luma
                shifts = np.zeros_like(latents) if feedback is None else feedback.shift(number)
                trellises = self._trellises(scales)
                own_centroids = [own[codes_chroma(number)] for own in centroids]
                costs = repeat(None) if elsewhere is None else select(elsewhere, number)
                said_of = latents, shifts, own_steps, means, scales, tables, own_centroids
                each = map(Values, *said_of, repeat(self.held), costs)
                bins_of, wrong = zip(*map(chosen, each, trellises), strict=True)
                own: Integers = stacked(bins_of)
                if feedback is not None:
                    feedback.learn(number, own)
            for tile, kept in enumerate(said):
                trellis = trellises[tile]
                checks = NO_CHECKS if trellis is None else trellis.checks
                kept.append(Said(own[tile], means[tile], scales[tile], checks, wrong[tile]))
            place(bins, number, own)
            prior.learn(number, own)
        return *self._details(prior, bins, steps), said

    def draft_level(
        self, values: Floats, level: int, low: Floats, parent: ort.OrtValue | None, finer: tuple[int, int]
    ) -> tuple[Floats, ort.OrtValue | None]:
        """Round a level's details as if bits cost nothing, lossy: as `encode_level`, without what passes have to say.

        Details that a decoder had come out as they were.
        """
        with self.clock.room("prior"):
            prior = LevelPrior(self.model, low, parent, level, self.codes, self.unit, finer)
        steps = self.steps(level)
        with self.clock.room("flow"):
            each = zip(integers(values), steps, strict=True)
            bins = stacked([drafted(tile, own.channels(DETAILS)) for tile, own in each])
        for number in range(PASSES):
            with self.clock.room("prior"):
                prior.said(number)
            prior.learn(number, select(bins, number))
        return self._details(prior, bins, steps)

    def decode_level(
        self,
        level: int,
        low: Floats,
        parent: ort.OrtValue | None,
        finer: tuple[int, int],
        decoders: Sequence[Decoder],
    ) -> tuple[Floats, ort.OrtValue | None]:
        """Read a level's bins.

        Args:
            level: As in `encode_level`, like `low`, `parent` and `finer`.
            low: As there.
            parent: As there.
            finer: As there.
            decoders: One a tile; they give the symbols.

        Returns:
            The level's details, [N, 9, h, w], and what its prior hands on.

        Raises:
            CorruptStreamError: The words cannot have been written by an Encoder.
        """
        with self.clock.room("prior"):
            prior = LevelPrior(self.model, low, parent, level, self.codes, self.unit, finer)
        bins = np.zeros((self.count, 9, *low.shape[2:]), np.int32)
        with self.clock.room("entropy"):
            each = zip(decoders, self.tables(), strict=True)
            calibrated = [Calibrated(Calibration.read(decoder), prior.size, tables) for decoder, tables in each]
        for number in self.passes(level):
            with self.clock.room("prior"):
                means, scales = prior.said(number)
            with self.clock.room("entropy"):
                tiles = zip(decoders, calibrated, means, scales, self._trellises(scales), strict=True)
                own = stacked([take_pass(number, *tile) for tile in tiles])
            place(bins, number, own)
            prior.learn(number, own)
        steps = self.steps(level)
        for tile, own_steps in zip(bins, steps, strict=True):
            check_bins(tile, own_steps.channels(DETAILS))
        return self._details(prior, bins, steps)

    def _trellises(self, scales: Shorts) -> Sequence[Trellis | None]:
        """How the bins of a pass are tied, [N, bands, rows, columns], for each tile; None: they are not."""
        tied = self.tied and self.codes is not None
        return [Trellis.of(own.ravel()) if tied else None for own in scales]

    def steps(self, level: int) -> list[Steps]:
        """How the 12 bands of a level are quantised, for each tile."""
        t = self.model.tables
        if self.codes is None:
            nothing = np.zeros(12, np.int32)
            return [Steps(np.full(12, STEP_UNIT, np.int32), 0, nothing, nothing, nothing)] * self.count
        margin = t.margins[level]
        return [
            Steps(t.steps[c, level], int(t.outward[c]), t.reaches[c, level], margin, t.weights[c, level])
            for c in self.codes
        ]

    def _feedback(self, details: Integers, level: int, steps: Sequence[Steps]) -> Feedback | None:
        """Errors of a level's details, [N, 9, h, w]; None if lossless."""
        if self.codes is None:
            return None
        return Feedback(self.model, details, level, [own.channels(DETAILS) for own in steps])

    def _details(self, prior: LevelPrior, bins: Integers, steps: Sequence[Steps]) -> tuple[Floats, ort.OrtValue | None]:
        """Bins of a level, [N, 9, h, w] -> its details as the decoder takes them, and what its prior hands on."""
        if self.codes is None and prior.level == 0:
            return bins.astype(np.float32), None  # offsets are of no use, and there is no finer level
        with self.clock.room("prior"):
            offsets, handed_on = prior.finish()
        if self.codes is None:
            return bins.astype(np.float32), handed_on
        with self.clock.room("flow"):
            if self.inner is not None and prior.level:
                offsets = stacked([faded(own, sides) for own, sides in zip(offsets, self.inner, strict=True)])
            each = zip(bins, offsets, self._shifts(prior, bins), steps, strict=True)
            details = stacked([dequantise(b, o + c, s.channels(DETAILS)).astype(np.float32) for b, o, c, s in each])
            return (details if prior.present.all() else details * prior.present), handed_on

    def _centroids(self) -> list[tuple[Centroids, Centroids]]:
        """Where values lie in their bins, luma's and chroma's, for each tile; of no use if lossless."""
        if self.codes is None:
            return [(NO_CENTROIDS, NO_CENTROIDS)] * self.count
        return [self.model.tables.centroids_of(code) for code in self.codes]

    def _shifts(self, prior: LevelPrior, bins: Integers) -> Iterator[Shorts]:
        """How far points lie off by what the prior said of their bins, in 1/256 bin, [9, h, w], for each tile."""
        for own, means, scales, centroids in zip(bins, prior.means, prior.scales, self._centroids(), strict=True):
            shifts = np.empty(own.shape, np.int16)
            for channel, (given, *said) in enumerate(zip(own, means, scales, strict=True)):
                shifts[channel] = centroids[channel in CHROMA].of(given, *said)
            yield shifts

    def finer(self, low: Floats, details: Floats, level: int, size: tuple[int, int]) -> Floats:
        """The inverse flow of a level: low-pass and details -> the finer low-pass, or planes, [N, 3, *size]."""
        with self.clock.room("flow"):
            return flow.inverse(low, details, self.model, level, self.unit, size)


def integers(values: Floats) -> Integers:
    """Latent values as the quantiser takes them."""
    return np.clip(values, -STATE_LIMIT, STATE_LIMIT).astype(np.int32)


def stacked(tiles: Sequence[NDArray[Number]]) -> NDArray[Number]:
    """One array a tile -> [N, ...]; a single one is not copied."""
    return tiles[0][None] if len(tiles) == 1 else np.stack(tiles)


def check_bins(bins: NDArray[np.integer[Any]], steps: Steps) -> None:
    """Refuse bins that no encoder writes and that 32 bits cannot hold: beyond twice STATE_LIMIT."""
    largest = np.abs(bins).max((1, 2), initial=0).astype(np.int64)
    if (largest * steps.width > 2 * STATE_LIMIT * STEP_UNIT).any():
        raise CorruptStreamError("a coefficient is impossibly large; the stream is damaged")
