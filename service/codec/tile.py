"""N tiles of one size <-> their parts, level by level, coarse to fine.

    planes -> analyse -> latent -> encode_tiles -> parts
    parts -> decode_tiles -> planes

Both directions run the same prior on the same values, so the decoder always knows what the encoder knew. `walk` has
one level of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.codec import flow, lattice
from service.codec.arrays import Floats, Integers
from service.codec.artifact import Model
from service.codec.clock import Clock
from service.codec.container import parts_of
from service.codec.entropy import Decoder, Encoder
from service.codec.lowest import decode_lowest, encode_lowest
from service.codec.passes import write_level
from service.codec.quantise import Steps, dequantise, quantise
from service.codec.walk import Latent, Walk, check_bins, integers, stacked


@dataclass(frozen=True)
class CodedTile:
    """A tile.

    Attributes:
        parts: Coarse to fine.
        planes: Those the decoder will have, [1, 3, H, W]; None if lossless.
        wrong: How many parities had to be made right, if they are tied.
    """

    parts: tuple[bytes, ...]
    planes: Floats | None
    wrong: int


def analyse(planes: Floats, model: Model, unit: int, clock: Clock, chroma: Floats | None = None) -> Latent:
    """Run the forward flow over all levels of N tiles.

    Args:
        planes: [N, 3, H, W].
        model: Whose flow.
        unit: Lattice units in a grey level.
        clock: Where time goes.
        chroma: Samples, as `flow.with_chroma` takes them, of planes that have none.
    """
    size = (planes.shape[2], planes.shape[3])
    details, lows = [], []
    with clock.room("flow"):
        for level in range(lattice.levels_of(*size)):
            planes, detail = flow.forward(planes, model, level, unit)
            if chroma is not None and level == 0:
                planes = flow.with_chroma(planes, chroma, model)
            details.append(detail)
            if unit == lattice.LOSSLESS_UNIT:
                lows.append(planes)
    return Latent(planes, tuple(details), tuple(lows), size, unit, halved=chroma is not None)


def encode_tiles(
    latent: Latent,
    model: Model,
    codes: list[int] | None,
    clock: Clock,
    tied: bool = True,
    held: bool = True,
) -> list[CodedTile]:
    """Code N tiles.

    Args:
        latent: The tiles.
        model: What to encode with.
        codes: Quality code of each tile; None: lossless, all of them.
        clock: Where time goes.
        tied: Whether parities of bins are those of a trellis; never if lossless.
        held: As in `Walk`.
    """
    levels = len(latent.details)
    walk = Walk(model, codes, len(latent.low), levels, latent.unit, clock, None, tied, held, latent.halved)
    tables, steps, sizes = walk.tables(), walk.low_steps(), lattice.sizes_of(*latent.size)
    bins = [quantise(tile, own) for tile, own in zip(integers(latent.low), steps, strict=True)]
    low, parent = rebuild_lows(bins, steps), None
    parts: list[list[bytes]] = [[] for _ in bins]
    wrong = [0] * len(bins)
    for index, part in enumerate(parts_of(levels)):
        encoders, heads = [Encoder(own) for own in tables], [b""] * len(bins)
        if index == 0:
            with clock.room("entropy"):
                heads = [encode_lowest(*own) for own in zip(bins, encoders, tables, strict=True)]
        for level in part:
            costs = latent.costs_elsewhere(level)
            details, parent, said = walk.encode_level(latent.details[level], level, low, parent, sizes[level], costs)
            wrong = [sofar + sum(own.wrong for own in tile) for sofar, tile in zip(wrong, said, strict=True)]
            with clock.room("entropy"):
                for tile in zip(encoders, said, tables, strict=True):
                    write_level(*tile)
            if codes is not None:
                low = walk.finer(low, details, level, sizes[level])
            elif level:  # the decoder's low-pass is the forward flow's own; beyond the finest level there is none
                low = latent.lows[level - 1]
        with clock.room("entropy"):
            for own_parts, head, encoder in zip(parts, heads, encoders, strict=True):
                own_parts.append(head + encoder.words())
    each = zip(parts, wrong, strict=True)
    return [CodedTile(tuple(p), None if codes is None else low[i : i + 1], w) for i, (p, w) in enumerate(each)]


def draft_tiles(latent: Latent, model: Model, codes: list[int], clock: Clock) -> Floats:
    """What a decoder would have of N tiles if bins were rounded and nothing priced, [N, 3, H, W]; lossy.

    Planes that a decoder had come out as they were.
    """
    walk = Walk(model, codes, len(latent.low), len(latent.details), latent.unit, clock)
    steps, sizes = walk.low_steps(), lattice.sizes_of(*latent.size)
    bins = [quantise(tile, own) for tile, own in zip(integers(latent.low), steps, strict=True)]
    low, parent = rebuild_lows(bins, steps), None
    for level in reversed(range(len(latent.details))):
        details, parent = walk.draft_level(latent.details[level], level, low, parent, sizes[level])
        low = walk.finer(low, details, level, sizes[level])
    return low


def decode_tiles(
    parts: Sequence[Sequence[bytes]],
    model: Model,
    codes: list[int] | None,
    size: tuple[int, int],
    unit: int,
    stop: int,
    clock: Clock,
    tied: bool = True,
    halved: bool = False,
) -> tuple[Floats, Latent]:
    """Rebuild N tiles from their first parts.

    Args:
        parts: For each tile the words of the parts that are needed, coarse to fine; equally many.
        model: The model the streams name.
        codes: Quality code of each tile; None: lossless, all of them.
        size: Height and width of a tile.
        unit: Lattice units in a grey level.
        stop: Level to stop at: 0 gives the planes, k the low-pass below level k - 1, at 1/2**k of the size.
        clock: Where time goes.
        tied: As in `encode_tiles`.
        halved: As in `Latent`.

    Returns:
        Planes, or a low-pass, [N, 3, h, w], and the latent; its low-pass below the finest level if that was decoded and
        has all chroma.

    Raises:
        CorruptStreamError: One of the tiles is damaged.
    """
    levels, sizes = lattice.levels_of(*size), lattice.sizes_of(*size)
    walk = Walk(model, codes, len(parts), levels, unit, clock, tied=tied, halved=halved)
    tables, steps = walk.tables(), walk.low_steps()
    divided = parts_of(levels)
    with clock.room("entropy"):
        opened = [decode_lowest(own[0], sizes[-1], t) for own, t in zip(parts, tables, strict=True)]
        for (_, bins), own_steps in zip(opened, steps, strict=True):
            check_bins(bins, own_steps)
        lowest = low = rebuild_lows([bins.astype(np.int32) for _, bins in opened], steps)
    decoders, parent = [decoder for decoder, _ in opened], None
    lows: tuple[Floats, ...] = ()
    kept = [np.empty(0, np.float32)] * levels
    for index, part in enumerate(divided[: len(parts[0])]):
        if index:
            with clock.room("entropy"):
                decoders = [Decoder(own[index], t) for own, t in zip(parts, tables, strict=True)]
        for level in part:
            if level >= stop:
                if halved and level == 0:
                    lows = (low,)
                kept[level], parent = walk.decode_level(level, low, parent, sizes[level], decoders)
                low = walk.finer(low, kept[level], level, sizes[level])
    return low, Latent(lowest, tuple(kept), lows, size, unit, halved=halved)


def rebuild_lows(bins: Sequence[Integers], steps: Sequence[Steps]) -> Floats:
    """Bins of the coarsest low-pass, [3, h, w] a tile -> [N, 3, h, w] as the decoder takes them."""
    each = zip(bins, steps, strict=True)
    return stacked([dequantise(b, np.zeros(b.shape, np.int16), s).astype(np.float32) for b, s in each])
