"""Stream -> parts -> pixels, at any scale.

bytes -> container -> tile (a picture of one tile), mosaic (of several) -> lattice -> pixels
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.codec import container, flow, lattice
from service.codec.arrays import Bytes8, Floats
from service.codec.artifact import Model
from service.codec.container import GREY, LOSSLESS, Header, Placed, crc32c
from service.codec.errors import CorruptStreamError
from service.codec.forms import Form, converted_of, shown
from service.codec.images import Limits
from service.codec.mosaic import PictureLatent, decode_picture
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
    size = read.header.height, read.header.width
    levels, tiles = lattice.levels_of(*size), len(lattice.tiles_of(*size))
    fewest = min(len(read.parts(tile)) for tile in range(tiles))
    if not fewest:
        raise CorruptStreamError("the stream ends before its first scale is whole; send more of it")
    return max(min(scale, 1 << levels), container.part_scale(levels, fewest - 1))


def pixels_of(read: ParsedStream, run: Run, scale: int, keep: bool) -> tuple[Bytes8, Latent | PictureLatent | None]:
    """Decode a picture.

    Args:
        read: The stream.
        run: With the model it names.
        scale: A scale it holds.
        keep: Whether the latent is kept.

    Returns:
        Pixels at 1/scale, and the latent if it is kept.

    Raises:
        CorruptStreamError: Damaged words, or at full size other pixels than those of the stream's checksum.
    """
    h, stop = read.header, scale.bit_length() - 1
    size, unit = (h.height, h.width), lattice.LOSSLESS_UNIT if h.lossless else lattice.LOSSY_UNIT
    code, levels = None if h.lossless else h.code, lattice.levels_of(*size)
    pixels = np.empty((-(-h.height // scale), -(-h.width // scale), 3), np.uint8)
    form = None if stop else h.form
    halved = h.form is not None and h.form.orientation is not None
    whole = None if form is None else np.empty((3, *size), np.int16)
    chroma = np.empty((1, 2, *(-(-side // 2) for side in size)), np.float32) if halved else None

    def show(top: int, rows: Floats) -> None:
        with run.clock.room("image"):
            if whole is not None:
                whole[:, top : top + rows.shape[2]] = rows[0]
                return
            own = _small_pixels(rows, run.model, stop, unit, h.form) if stop else lattice.to_pixels(rows, unit)
            pixels[top : top + rows.shape[2]] = own

    def needed(tile: int) -> tuple[bytes, ...]:
        each = enumerate(read.parts(tile))
        return tuple(part for p, part in each if p == 0 or container.part_scale(levels, p) >= scale)

    latent: Latent | PictureLatent | None
    tiles = len(lattice.tiles_of(*size))
    if tiles == 1:
        planes, latent = run.step(Decode(run.model, needed(0), code, size, unit, stop, h.tied, halved))
        if latent.lows:
            chroma = flow.chroma_of(latent.lows[0], run.model)
        show(0, planes)
    else:
        parts = [needed(tile) for tile in range(tiles)]
        latent = decode_picture(parts, code, size, unit, stop, run, show, keep, h.tied, chroma)
    if form is not None and whole is not None:
        with run.clock.room("image"):
            pixels = shown(whole, None if chroma is None else chroma[0], read.payload("lists") or b"", form)
    if h.flags & GREY:
        pixels = lattice.greyed(pixels)
    if scale == 1 and crc32c(pixels.data) != h.pixel_crc:
        raise CorruptStreamError("the decoded pixels do not have the stream's checksum; the stream is damaged")
    return pixels, latent if keep else None


def _small_pixels(low: Floats, model: Model, stop: int, unit: int, form: Form | None) -> Bytes8:
    """Low-pass below level stop - 1 -> pixels: its constant offset and gain are taken out, in whole numbers."""
    rung = model.rung(stop - 1, unit)
    gain, offsets = (t[rung][:, None, None] for t in (model.tables.low_gains, model.tables.low_offsets))
    wide = (low[0].astype(np.int64) << 20) - offsets * unit
    y, cg, co = (2 * wide + gain * unit) // (2 * gain * unit)
    if form is not None:
        return form.conversion.pixels(converted_of(y, cg, co, form.conversion))
    lean = cg * lattice.LEAN_256THS >> 8 if unit == lattice.LOSSY_UNIT else 0
    t = y + lean - (cg >> 1)
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
