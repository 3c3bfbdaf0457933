"""A picture of several tiles <-> their parts: bins are coded tile by tile, the flow runs across tile borders.

    planes -> analyse_picture -> latent -> encode_picture -> parts
    parts -> decode_picture -> planes

So no border shows, however coarse the bins. Levels run row by row of tiles (`tile_rows`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from service.codec import flow
from service.codec.arrays import Bytes8, Floats, Integers, Shorts
from service.codec.calibration import Said
from service.codec.coder_tables import Tables
from service.codec.container import parts_of
from service.codec.entropy import Decoder, Encoder
from service.codec.lattice import Area, Tile
from service.codec.level_steps import DecodeLevel, DraftLevel, EncodeLevel, Forward, Place
from service.codec.lowest import decode_lowest, encode_lowest
from service.codec.passes import write_level
from service.codec.quantise import quantise
from service.codec.steps import Run
from service.codec.tile import rebuild_lows
from service.codec.tile_rows import HALO, Grid, finer_rows
from service.codec.walk import Walk, check_bins, integers

Show = Callable[[int, Floats], None]
"""Takes rows of what a decoder shows, [1, 3, h, W], and where the first of them lies."""


@dataclass(frozen=True)
class PictureLatent:
    """A picture of several tiles after the forward flow, in lattice units.

    Attributes:
        low: Coarsest low-pass, [1, 3, h, w].
        details: Of a level and a tile, [1, 9, h, w].
        size: Height and width of the picture.
        unit: Lattice units in a grey level.
        elsewhere: What bins cost elsewhere, as in `Values`, of a level and a tile, [1, 9, h, w]; None: not known.
        halved: As in `Latent`.
    """

    low: Floats
    details: Callable[[int, Tile], Floats]
    size: tuple[int, int]
    unit: int
    elsewhere: Callable[[int, Tile], Shorts] | None = None
    halved: bool = False


def analyse_picture(
    read: Callable[[Area], Floats], size: tuple[int, int], unit: int, run: Run, chroma: Floats | None = None
) -> PictureLatent:
    """Run the forward flow over all levels of a picture.

    Args:
        read: Planes of an area, [1, 3, h, w], on the lattice of `unit`. The finest level's details are made when they
            are asked for and not kept, so it is called again then.
        size: Height and width.
        unit: Lattice units in a grey level.
        run: What runs.
        chroma: As in `tile.analyse`, of the picture.
    """
    grid = Grid(size)

    def split(level: int, tile: Tile, state: Callable[[Area], Floats]) -> tuple[Floats, Floats]:
        own, sizes = tile.area(level + 1), grid.sizes
        around = own.grown(HALO, sizes[level + 1])
        low, details = run.step(Forward(run.model, state(around.doubled(sizes[level])), level, unit))
        inner = own.within(around)
        return inner.of(low), inner.of(details)

    state, kept = read, [np.empty(0, np.float32)]
    low = np.empty(0, np.float32)
    for level in range(grid.levels):
        low = np.empty((1, 3, *grid.sizes[level + 1]), np.float32)
        if level:
            kept.append(np.empty((1, 9, *grid.sizes[level + 1]), np.float32))
        for tile in grid.tiles:
            area = tile.area(level + 1)
            area.of(low)[:], details = split(level, tile, state)
            if level:
                area.of(kept[level])[:] = details
        if chroma is not None and level == 0:
            low = flow.with_chroma(low, chroma, run.model)
        state = functools.partial(_area_of, low)

    def details_of(level: int, tile: Tile) -> Floats:
        return tile.area(level + 1).of(kept[level]) if level else split(0, tile, read)[1]

    return PictureLatent(low, details_of, size, unit, halved=chroma is not None)


def _area_of(state: Floats, area: Area) -> Floats:
    return area.of(state)


def encode_picture(
    latent: PictureLatent, code: int | None, run: Run, show: Show, tied: bool = True, held: bool = True
) -> tuple[tuple[tuple[bytes, ...], ...], int]:
    """Code a picture.

    Args:
        latent: The picture.
        code: Quality code; None: lossless.
        run: What runs.
        show: Takes the planes the decoder will have; not called if lossless.
        tied: Whether parities of bins are those of a trellis; never if lossless.
        held: As in `Walk`.

    Returns:
        The parts of each tile, and how many parities had to be made right.
    """
    grid = Grid(latent.size)
    walk = Walk(run.model, None if code is None else [code], 1, grid.levels, latent.unit, run.clock)
    (tables,), steps = walk.tables(), walk.low_steps()
    writers, low = [_Writer(tables, grid.levels) for _ in grid.tiles], np.empty_like(latent.low)
    with run.clock.room("entropy"):
        for writer, tile in zip(writers, grid.tiles, strict=True):
            area = tile.area(grid.levels)
            bins = quantise(integers(area.of(latent.low))[0], steps[0])
            writer.lowest(bins)
            area.of(low)[:] = rebuild_lows([bins], steps)

    def encode_tile(level: int, index: int, low: Floats, parent: Bytes8 | None) -> tuple[Floats, Bytes8 | None]:
        finer = grid.tile_size(index, level)
        inner, how = grid.inner(index), (tied, held, latent.halved)
        place = Place(run.model, level, low, parent, code, latent.unit, inner, finer, *how)
        tile = grid.tiles[index]
        elsewhere = None if latent.elsewhere is None else latent.elsewhere(level, tile)
        details, handed_on, said = run.step(EncodeLevel(place, latent.details(level, tile), elsewhere))
        with run.clock.room("entropy"):
            writers[index].add(level, said)
        return details, handed_on

    for top, planes in finer_rows(grid, low, 0, encode_tile, latent.unit, run, inverted=code is not None):
        show(top, planes)
    return tuple(tuple(writer.parts) for writer in writers), sum(writer.wrong for writer in writers)


def draft_picture(latent: PictureLatent, code: int, run: Run, show: Show) -> None:
    """What a decoder would have of a picture if bins were rounded and nothing priced: as `tile.draft_tiles`.

    Args:
        latent: The picture.
        code: Quality code.
        run: What runs.
        show: Takes the planes.
    """
    grid = Grid(latent.size)
    steps = Walk(run.model, [code], 1, grid.levels, latent.unit, run.clock).low_steps()
    low = rebuild_lows([quantise(integers(latent.low)[0], steps[0])], steps)

    def draft_tile(level: int, index: int, low: Floats, parent: Bytes8 | None) -> tuple[Floats, Bytes8 | None]:
        place = Place(run.model, level, low, parent, code, latent.unit, grid.inner(index), grid.tile_size(index, level))
        return run.step(DraftLevel(place, latent.details(level, grid.tiles[index])))

    for top, planes in finer_rows(grid, low, 0, draft_tile, latent.unit, run):
        show(top, planes)


class _Writer:
    """A tile's parts as they grow."""

    def __init__(self, tables: Tables, levels: int) -> None:
        self._tables, self._divided = tables, parts_of(levels)
        self.parts: list[bytes] = []
        self.wrong = 0
        self._begin()

    def _begin(self) -> None:
        self._encoder, self._head = Encoder(self._tables), b""

    def lowest(self, bins: Integers) -> None:
        self._head = encode_lowest(bins, self._encoder, self._tables)

    def add(self, level: int, said: Sequence[Said]) -> None:
        write_level(self._encoder, said, self._tables)
        self.wrong += sum(own.wrong for own in said)
        if level == self._divided[len(self.parts)][-1]:
            self.parts.append(self._head + self._encoder.words())
            self._begin()


def decode_picture(
    parts: Sequence[Sequence[bytes]],
    code: int | None,
    size: tuple[int, int],
    unit: int,
    stop: int,
    run: Run,
    show: Show,
    keep: bool = False,
    tied: bool = True,
    chroma: Floats | None = None,
) -> PictureLatent | None:
    """Rebuild a picture from the first parts of its tiles.

    Args:
        parts: Of each tile the words of the parts that are needed, coarse to fine; equally many.
        code: Quality code; None: lossless.
        size: Height and width of the picture.
        unit: Lattice units in a grey level.
        stop: Level to stop at: 0 gives the planes, k the low-pass below level k - 1, at 1/2**k of the size.
        run: With the model the stream names.
        show: Takes the planes, or the low-pass.
        keep: Whether the latent is kept.
        tied: As in `encode_picture`.
        chroma: Takes the samples of chroma, [1, 2, h, w], of pictures that have no others.

    Returns:
        The latent, if kept.

    Raises:
        CorruptStreamError: One of the tiles is damaged.
    """
    grid = Grid(size)
    walk = Walk(run.model, None if code is None else [code], 1, grid.levels, unit, run.clock)
    (tables,), steps = walk.tables(), walk.low_steps()
    readers, low = [], np.empty((1, 3, *grid.sizes[-1]), np.float32)
    with run.clock.room("entropy"):
        for own, tile in zip(parts, grid.tiles, strict=True):
            area = tile.area(grid.levels)
            readers.append(_Reader(own, tables, grid.levels, (area.bottom - area.top, area.right - area.left)))
            check_bins(readers[-1].lowest, steps[0])
            area.of(low)[:] = rebuild_lows([readers[-1].lowest.astype(np.int32)], steps)
    kept = [np.empty((1, 9, *size), np.float32) for size in grid.sizes[1:]] if keep else []

    def decode_tile(level: int, index: int, low: Floats, parent: Bytes8 | None) -> tuple[Floats, Bytes8 | None]:
        reader, inner = readers[index], grid.inner(index)
        if chroma is not None and level == 0:
            grid.tiles[index].area(1).of(chroma)[:] = flow.chroma_of(low, run.model)
        finer, halved = grid.tile_size(index, level), chroma is not None
        place = Place(run.model, level, low, parent, code, unit, inner, finer, tied, halved=halved)
        details, handed_on, reader.decoder = run.step(DecodeLevel(place, reader.at(level)))
        if keep:
            grid.tiles[index].area(level + 1).of(kept[level])[:] = details
        return details, handed_on

    for top, planes in finer_rows(grid, low, stop, decode_tile, unit, run):
        show(top, planes)
    return PictureLatent(low, lambda level, tile: tile.area(level + 1).of(kept[level]), size, unit) if keep else None


class _Reader:
    """A tile's parts as they are read."""

    def __init__(self, parts: Sequence[bytes], tables: Tables, levels: int, lowest: tuple[int, int]) -> None:
        self._parts, self._tables, self._divided = parts, tables, parts_of(levels)
        self.decoder, self.lowest = decode_lowest(parts[0], lowest, tables)

    def at(self, level: int) -> Decoder:
        """The decoder as it stands before a level: of the one before, or at the beginning of a part."""
        number = next(i for i, part in enumerate(self._divided) if level in part)
        if number and level == self._divided[number][0]:
            self.decoder = Decoder(self._parts[number], self._tables)
        return self.decoder
