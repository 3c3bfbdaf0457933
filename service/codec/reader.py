"""Stream -> parts -> pixels, tile by tile, at any scale.

bytes -> container -> tile steps (decode) -> lattice -> pixels
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.codec import container, lattice
from service.codec.arrays import Bytes8, Floats
from service.codec.artifact import Model
from service.codec.container import GREY, LOSSLESS, Header, Placed, crc32c
from service.codec.errors import CorruptStreamError
from service.codec.images import Limits
from service.codec.steps import Decode, Run
from service.codec.walk import Latent


@dataclass(frozen=True)
class ParsedStream:
    """A parsed stream."""

    header: Header
    placed: list[Placed]
    complete: bool
    data: bytes

    def payload(self, kind: str) -> bytes | None:
        """Payload of the first section of a kind."""
        return next((self.bytes_of(p) for p in self.placed if p.section.kind == kind), None)

    def bytes_of(self, placed: Placed) -> bytes:
        """Payload of a section."""
        return self.data[placed.start : placed.start + placed.length]

    def parts(self, tile: int) -> list[bytes]:
        """Parts of a tile, coarse to fine."""
        return [self.bytes_of(p) for p in self.placed if p.section.kind == "part" and p.section.tile == tile]


def read_stream(stream: bytes, limits: Limits, prefix: bool) -> ParsedStream:
    """Parse a stream; with `prefix` one cut short will do. Raises what the container raises."""
    header, start = container.read_header(stream, limits)
    placed, complete = container.read_sections(stream, header, start, limits, prefix)
    return ParsedStream(header, placed, complete, stream)


def reachable_scale(read: ParsedStream, scale: int) -> int:
    """The wanted scale, as far as levels (at most) and the sections there are (at least) allow."""
    tiles = lattice.tiles_of(read.header.height, read.header.width)
    levels = [lattice.levels_of(t.height, t.width) for t in tiles]
    if len(tiles) == 1:
        scale = min(scale, 1 << levels[0])
    for tile, count in enumerate(levels):
        parts = len(read.parts(tile))
        if not parts:
            raise CorruptStreamError("the stream ends before its first scale is whole; send more of it")
        scale = max(scale, min(container.part_scale(count, parts - 1), 1 << count))
    return scale


def pixels_of(read: ParsedStream, run: Run, scale: int, keep: bool) -> tuple[Bytes8, tuple[Latent, ...]]:
    """Decode all tiles.

    Args:
        read: The stream.
        run: With the model it names.
        scale: A scale it holds.
        keep: Whether the tiles' latents are kept.

    Returns:
        Pixels at 1/scale, and the latents if they are kept.

    Raises:
        CorruptStreamError: Damaged words, or at full size other pixels than those of the stream's checksum.
    """
    h = read.header
    pixels = np.empty((-(-h.height // scale), -(-h.width // scale), 3), np.uint8)
    latents = []
    for index, tile in enumerate(lattice.tiles_of(h.height, h.width)):
        step = _step_of(read, run.model, index, (tile.height, tile.width), scale)
        planes, latent = run.step(step)
        if keep:
            latents.append(latent)
        with run.clock.room("image"):
            stop, unit = step.stop, step.unit
            small = _small_pixels(planes, run.model, stop, unit) if stop else lattice.to_pixels(planes, unit)
            top, left = tile.top // scale, tile.left // scale
            view = pixels[top : top + small.shape[0], left : left + small.shape[1]]
            extra = scale >> stop
            view[:] = small[::extra, ::extra][: view.shape[0], : view.shape[1]]
    if h.flags & GREY:
        pixels = lattice.greyed(pixels)
    if scale == 1 and crc32c(pixels.data) != h.pixel_crc:
        raise CorruptStreamError("the decoded pixels do not have the stream's checksum; the stream is damaged")
    return pixels, tuple(latents)


def _step_of(read: ParsedStream, model: Model, index: int, size: tuple[int, int], scale: int) -> Decode:
    """The step that decodes a tile as far as a scale needs."""
    lossless, levels, parts = read.header.lossless, lattice.levels_of(*size), read.parts(index)
    stop = min(levels, scale.bit_length() - 1)
    needed = [part for p, part in enumerate(parts) if p == 0 or container.part_scale(levels, p) >= 1 << stop]
    unit, code = (lattice.LOSSLESS_UNIT, None) if lossless else (lattice.LOSSY_UNIT, read.header.code)
    return Decode(model, tuple(needed), code, size, unit, stop)


def _small_pixels(low: Floats, model: Model, stop: int, unit: int) -> Bytes8:
    """Low-pass below level stop - 1 -> pixels: its constant offset and gain are taken out, in whole numbers."""
    rung = model.rung(stop - 1, unit)
    gain, offsets = (t[rung][:, None, None] for t in (model.tables.low_gains, model.tables.low_offsets))
    wide = (low[0].astype(np.int64) << 20) - offsets * unit
    y, cg, co = (2 * wide + gain * unit) // (2 * gain * unit)
    t = y - (cg >> 1)
    b = t - (co >> 1)
    rgb = np.stack([co + b, cg + t, b], -1) + lattice.CENTRE
    pixels: Bytes8 = np.clip(rgb, 0, 255).astype(np.uint8)
    return pixels


def decode_alpha(read: ParsedStream, run: Run, limits: Limits, scale: int) -> Bytes8 | None:
    """The picture's opacity at 1/scale, a lossless grey stream of its own; None if it has none.

    Raises:
        CorruptStreamError: Damaged, or of another picture or model.
    """
    stream = read.payload("alpha")
    if stream is None:
        return None
    inner, outer = read_stream(stream, limits, prefix=False), read.header
    h = inner.header
    if (h.width, h.height, h.flags, h.model_id) != (outer.width, outer.height, LOSSLESS | GREY, outer.model_id):
        raise CorruptStreamError("the alpha section does not fit its picture; the stream is damaged")
    pixels, _ = pixels_of(inner, run, scale, keep=False)
    return np.ascontiguousarray(pixels[..., 0])
