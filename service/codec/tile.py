"""One tile's latent <-> the words of its parts, through quantiser, prior and entropy coder, coarse to fine.

    encode: for each level from the coarsest: quantise -> prior -> entropy -> dequantise -> inverse flow
    decode: the same walk, with bins from the words instead of the latent

Both directions run the same prior on the same values, so the decoder always knows what the encoder knew.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.codec import flow, lattice
from service.codec.arrays import Floats, Integers, Shorts
from service.codec.artifact import Model
from service.codec.container import parts_of
from service.codec.entropy import Decoder, Encoder, Tables, symbols_of
from service.codec.errors import CorruptStreamError
from service.codec.prior import PASSES, LevelPrior, place, select
from service.codec.quantise import STATE_LIMIT, STEP_UNIT, Steps, dequantise, quantise

LOW_TABLES = 70
"""The coarsest low-pass of a channel is coded with one of these scale indices, said in one byte."""


@dataclass
class Clock:
    """Seconds spent in each room."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def room(self, name: str) -> Iterator[None]:
        """Count what happens inside."""
        begun = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - begun


@dataclass(frozen=True)
class Latent:
    """A tile after the forward flow, in lattice units.

    Attributes:
        low: Coarsest low-pass, [1, 3, h, w].
        details: Nine detail channels of each level, finest first.
        lows: Low-pass below each level, finest first; empty unless asked for.
        size: Height and width of the tile.
        unit: Lattice units in a grey level.
    """

    low: Floats
    details: tuple[Floats, ...]
    lows: tuple[Floats, ...]
    size: tuple[int, int]
    unit: int


@dataclass(frozen=True)
class CodedTile:
    """A tile's parts, coarse to fine, and for lossy codes the planes the decoder will have."""

    parts: tuple[bytes, ...]
    planes: Floats | None


def analyse(planes: Floats, model: Model, unit: int, clock: Clock) -> Latent:
    """Run the forward flow over all levels of a tile; planes [1, 3, H, W]."""
    size = (planes.shape[2], planes.shape[3])
    details, lows = [], []
    with clock.room("flow"):
        for level in range(lattice.levels_of(*size)):
            planes, detail = flow.forward(planes, model, level, unit)
            details.append(detail)
            lows.append(planes)
    return Latent(planes, tuple(details), tuple(lows), size, unit)


def _steps(model: Model, code: int | None, level: int) -> Steps:
    """How a level's 12 bands are quantised; code None is lossless."""
    tables = model.tables
    if code is None:
        return Steps(np.full(12, STEP_UNIT, np.int32), 0, 0, np.zeros(12, np.int32))
    return Steps(tables.steps[code, level], int(tables.dead[code]), int(tables.outward[code]), tables.margins[level])


def _integers(values: Floats) -> Integers:
    return np.clip(values, -STATE_LIMIT, STATE_LIMIT).astype(np.int32)


def _low_steps(model: Model, code: int | None, levels: int) -> Steps:
    """Those of the coarsest low-pass: no dead zone, points in the middle."""
    steps = _steps(model, code, max(levels - 1, 0)).channels(0, 3)
    return replace(steps, dead=0, outward=0)


def _rebuild_low(bins: Integers, steps: Steps) -> Floats:
    return dequantise(bins, np.zeros(bins.shape, np.int16), steps)[None].astype(np.float32)


def encode_tile(
    latent: Latent, model: Model, code: int | None, clock: Clock, make_encoder: Callable[[Tables], Encoder] = Encoder
) -> CodedTile:
    """Code a tile at a quality code (None: lossless).

    Args:
        latent: The tile.
        model: What to encode with.
        code: Quality code.
        clock: Where time goes.
        make_encoder: What collects the symbols of a part.

    Returns:
        Its parts; for lossy codes also the decoder's planes.
    """
    levels = len(latent.details)
    parts: list[bytes] = []
    steps = _low_steps(model, code, levels)
    bins = quantise(_integers(latent.low[0]), steps)
    low, parent = _rebuild_low(bins, steps), None
    prefix = _encode_low(bins)
    for part in parts_of(levels):
        encoder = make_encoder(model.tables.entropy)
        head = b""
        if not parts:
            head = prefix.scales
            with clock.room("entropy"):
                prefix.add_to(encoder, model)
        for level in part:
            with clock.room("prior"):
                prior = LevelPrior(model, low, parent, level, None if code is None else [code], latent.unit)
            with clock.room("flow"):
                all_bins = quantise(_integers(latent.details[level][0]), _steps(model, code, level).channels(3, 12))[
                    None
                ]
            for number in range(PASSES):
                with clock.room("prior"):
                    means, scales = prior.said(number)
                own = select(all_bins, number)
                with clock.room("entropy"):
                    encoder.add(symbols_of(own.ravel(), means.ravel(), scales.ravel(), model.tables.entropy))
                prior.learn(number, own)
            low = _next_low(latent, prior, all_bins, low, model, code, level, clock)
            parent = prior.features
        with clock.room("entropy"):
            parts.append(head + encoder.words())
    return CodedTile(tuple(parts), None if code is None else low)


def _next_low(
    latent: Latent,
    prior: LevelPrior,
    bins: Integers,
    low: Floats,
    model: Model,
    code: int | None,
    level: int,
    clock: Clock,
) -> Floats:
    """The low-pass of the next finer level as the decoder will have it."""
    if code is None:
        return latent.lows[level - 1] if level else low
    details = _rebuild(prior, bins, model, code, level, clock)
    with clock.room("flow"):
        size = lattice.sizes_of(*latent.size)[level]
        return flow.inverse(low, details, model, level, latent.unit, size)


def _rebuild(prior: LevelPrior, bins: Integers, model: Model, code: int | None, level: int, clock: Clock) -> Floats:
    """Bins of a level, [1, 9, H, W] -> its details as the decoder takes them."""
    if code is None:
        return bins.astype(np.float32)
    with clock.room("prior"):
        offsets = prior.offsets()
    with clock.room("flow"):
        return dequantise(bins[0], offsets[0], _steps(model, code, level).channels(3, 12))[None].astype(np.float32)


def decode_tile(
    parts: list[bytes], model: Model, code: int | None, size: tuple[int, int], unit: int, stop: int, clock: Clock
) -> tuple[Floats, Latent]:
    """Rebuild a tile from its first parts.

    Args:
        parts: Words of the parts that are needed, coarse to fine.
        model: The model the stream names.
        code: Quality code, None if lossless.
        size: Height and width of the tile.
        unit: Lattice units in a grey level.
        stop: Level to stop at: 0 gives the planes, k the low-pass below level k - 1, at 1/2**k of the size.
        clock: Where time goes.

    Returns:
        Planes, or a low-pass, [1, 3, h, w], and the latent.
    """
    sizes = lattice.sizes_of(*size)
    levels = len(sizes) - 1
    kept = [np.empty(0, np.float32)] * levels
    low, parent, first = np.empty(0, np.float32), None, np.empty(0, np.float32)
    for index, part in enumerate(parts_of(levels)[: len(parts)]):
        with clock.room("entropy"):
            if index == 0:
                decoder, bins = _decode_low(parts[0], model, code, size, sizes[-1])
                first = low = _rebuild_low(bins, _low_steps(model, code, levels))
            else:
                decoder = Decoder(parts[index], model.tables.entropy)
        for level in part:
            if level < stop:
                return low, Latent(first, tuple(kept), (), size, unit)
            with clock.room("prior"):
                prior = LevelPrior(model, low, parent, level, None if code is None else [code], unit)
            all_bins = np.zeros((1, 9, *sizes[level + 1]), np.int32)
            for number in range(PASSES):
                with clock.room("prior"):
                    means, scales = prior.said(number)
                with clock.room("entropy"):
                    own = decoder.take(means.ravel(), scales.ravel()).reshape(means.shape)
                place(all_bins, number, own)
                prior.learn(number, own)
            _check_bins(all_bins[0], _steps(model, code, level).channels(3, 12))
            details = _rebuild(prior, all_bins, model, code, level, clock)
            with clock.room("flow"):
                low = flow.inverse(low, details, model, level, unit, sizes[level])
            kept[level], parent = details, prior.features
    return low, Latent(first, tuple(kept), (), size, unit)


@dataclass(frozen=True)
class _Low:
    """The coarsest low-pass as the coder sees it: differences, and the table of each channel."""

    scales: bytes
    differences: tuple[Integers, ...]

    def add_to(self, encoder: Encoder, model: Model) -> None:
        """Code the differences channel by channel."""
        for scale, values in zip(self.scales, self.differences, strict=True):
            means, scales = _flat(values.size, scale)
            encoder.add(symbols_of(values, means, scales, model.tables.entropy))


def _flat(count: int, scale: int) -> tuple[Shorts, Shorts]:
    return np.zeros(count, np.int16), np.full(count, scale, np.int16)


def _encode_low(bins: Integers) -> _Low:
    """Differences to left + above - above left; the scale whose table fits their mean size."""
    differences, chosen = [], []
    for channel in bins:
        padded = np.pad(channel, ((1, 0), (1, 0)))
        values = (channel - padded[1:, :-1] - padded[:-1, 1:] + padded[:-1, :-1]).ravel().astype(np.int32)
        differences.append(values)
        # A logistic of scale s has a mean size of 2 s ln 2; whole numbers keep the choice the same everywhere.
        spread = int(np.abs(values).sum()) * 1024 // max(1, values.size)
        index = sum(spread > int(1024 * 1.386 * 2 ** (-4.8 + 0.2 * i + 0.1)) for i in range(LOW_TABLES))
        chosen.append(min(index, LOW_TABLES - 1))
    return _Low(bytes(chosen), tuple(differences))


def _decode_low(
    part: bytes, model: Model, code: int | None, full: tuple[int, int], size: tuple[int, int]
) -> tuple[Decoder, Integers]:
    if len(part) < 3 or max(part[:3]) >= LOW_TABLES:
        raise CorruptStreamError("the first section is impossible; the stream is damaged")
    decoder, channels = Decoder(part[3:], model.tables.entropy), []
    for scale in part[:3]:
        means, scales = _flat(size[0] * size[1], scale)
        differences = decoder.take(means, scales).reshape(size).astype(np.int64)
        bins = np.cumsum(np.cumsum(differences, 0), 1)
        channels.append(bins)
    _check_bins(np.stack(channels), _low_steps(model, code, lattice.levels_of(*full)))
    return decoder, np.stack(channels).astype(np.int32)


def _check_bins(bins: NDArray[np.integer[Any]], steps: Steps) -> None:
    """Refuse bins that no encoder writes and that 32 bits cannot hold: beyond twice STATE_LIMIT."""
    largest = np.abs(bins).max((1, 2), initial=0).astype(np.int64)
    if (largest * steps.width > 2 * STATE_LIMIT * STEP_UNIT).any():
        raise CorruptStreamError("a coefficient is impossibly large; the stream is damaged")
