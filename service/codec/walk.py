"""One level of N tiles <-> the symbols of their parts: prior -> quantise -> entropy -> dequantise -> inverse flow.

Tiles of one size walk in lockstep, each at a quality code of its own: every graph runs once for all of them,
quantiser and entropy coder run tile by tile. Graphs are exact, so company changes no byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.codec import flow, lattice
from service.codec.arrays import Floats, Integers
from service.codec.artifact import Model
from service.codec.clock import Clock
from service.codec.entropy import Decoder, Encoder, Tables, symbols_of
from service.codec.errors import CorruptStreamError
from service.codec.prior import CHROMA, LUMA, PASSES, LevelPrior, place, select
from service.codec.quantise import STATE_LIMIT, STEP_UNIT, Steps, choose, dequantise

LOW, DETAILS = slice(0, 3), slice(3, 12)
"""The low-pass's and the details' bands, out of a level's twelve."""
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class Latent:
    """N tiles of one size after the forward flow, in lattice units.

    Attributes:
        low: Coarsest low-pass, [N, 3, h, w].
        details: Nine detail channels of each level, finest first, [N, 9, h, w].
        lows: Low-pass below each level, finest first, which lossless coding reads; empty on the lossy lattice.
        size: Height and width of a tile.
        unit: Lattice units in a grey level.
    """

    low: Floats
    details: tuple[Floats, ...]
    lows: tuple[Floats, ...]
    size: tuple[int, int]
    unit: int


@dataclass(frozen=True)
class Walk:
    """What both directions share.

    Attributes:
        model: What codes.
        codes: Quality code of each tile; None: lossless, all of them.
        count: Number of tiles.
        size: Height and width of a tile.
        unit: Lattice units in a grey level.
        clock: Where time goes.
    """

    model: Model
    codes: list[int] | None
    count: int
    size: tuple[int, int]
    unit: int
    clock: Clock

    def tables(self) -> list[Tables]:
        """The coder's tables for each tile."""
        codes: Sequence[int | None] = [None] * self.count if self.codes is None else self.codes
        return [self.model.tables.entropy_of(code) for code in codes]

    def low_steps(self) -> list[Steps]:
        """How each tile's coarsest low-pass is quantised: the nearest bin, points in its middle."""
        deepest = max(lattice.levels_of(*self.size) - 1, 0)
        middle = np.full(3, 32, np.int32)
        return [replace(steps.channels(LOW), outward=0, reach=middle) for steps in self._steps(deepest)]

    def encode_level(
        self, latent: Latent, level: int, low: Floats, parent: ort.OrtValue | None, encoders: Sequence[Encoder]
    ) -> tuple[Floats, ort.OrtValue]:
        """Code a level's bins.

        Args:
            latent: The tiles.
            level: 0 is the finest.
            low: Low-pass of the level as the decoder has it, [N, 3, h, w].
            parent: The prior's features of the coarser level.
            encoders: One a tile; they get the symbols.

        Returns:
            The low-pass of the finer level as the decoder will have it, and the prior's features of this one.
        """
        with self.clock.room("prior"):
            prior = LevelPrior(self.model, low, parent, level, self.codes, self.unit)
        with self.clock.room("flow"):
            details, bins = integers(latent.details[level]), np.empty(latent.details[level].shape, np.int32)
        steps, tables = self._steps(level), self.tables()
        luma, chroma = ([own.channels([3 + c for c in chosen]) for own in steps] for chosen in (LUMA, CHROMA))
        for number in range(PASSES):
            with self.clock.room("prior"):
                means, scales = prior.said(number)
            with self.clock.room("flow"):
                each = zip(select(details, number), chroma if number >= 4 else luma, means, scales, tables, strict=True)
                own = stacked([choose(*tile) for tile in each])
            with self.clock.room("entropy"):
                for tile, encoder in enumerate(encoders):
                    flat = own[tile].ravel(), means[tile].ravel(), scales[tile].ravel()
                    encoder.add(symbols_of(*flat, tables[tile]))
            place(bins, number, own)
            prior.learn(number, own)
        if self.codes is None:
            # The decoder's low-pass is the forward flow's own; beyond the finest level there is none.
            return latent.lows[level - 1] if level else low, prior.features
        return self._finer(low, self._details(prior, bins, steps), level), prior.features

    def decode_level(
        self, level: int, low: Floats, parent: ort.OrtValue | None, decoders: Sequence[Decoder]
    ) -> tuple[Floats, Floats, ort.OrtValue]:
        """Read a level's bins; arguments as in `encode_level`.

        Returns:
            The low-pass of the finer level, this level's details [N, 9, h, w], and the prior's features.

        Raises:
            CorruptStreamError: The words cannot have been written by an Encoder.
        """
        with self.clock.room("prior"):
            prior = LevelPrior(self.model, low, parent, level, self.codes, self.unit)
        bins = np.zeros((self.count, 9, *low.shape[2:]), np.int32)
        for number in range(PASSES):
            with self.clock.room("prior"):
                means, scales = prior.said(number)
            with self.clock.room("entropy"):
                taken = [d.take(m.ravel(), s.ravel()) for d, m, s in zip(decoders, means, scales, strict=True)]
                own = stacked(taken).reshape(means.shape)
            place(bins, number, own)
            prior.learn(number, own)
        steps = self._steps(level)
        for tile, own_steps in zip(bins, steps, strict=True):
            check_bins(tile, own_steps.channels(DETAILS))
        details = self._details(prior, bins, steps)
        return self._finer(low, details, level), details, prior.features

    def _steps(self, level: int) -> list[Steps]:
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

    def _details(self, prior: LevelPrior, bins: Integers, steps: Sequence[Steps]) -> Floats:
        """Bins of a level, [N, 9, h, w] -> its details as the decoder takes them."""
        if self.codes is None:
            return bins.astype(np.float32)
        with self.clock.room("prior"):
            offsets = prior.offsets()
        with self.clock.room("flow"):
            each = zip(bins, offsets, steps, strict=True)
            return stacked([dequantise(b, o, s.channels(DETAILS)).astype(np.float32) for b, o, s in each])

    def _finer(self, low: Floats, details: Floats, level: int) -> Floats:
        with self.clock.room("flow"):
            size = lattice.sizes_of(*self.size)[level]
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
