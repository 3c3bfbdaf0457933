"""Head of a stream -> what it says of itself. No graph runs."""

from __future__ import annotations

from dataclasses import dataclass

from service.codec import container, lattice
from service.codec.container import ALPHA, GREY
from service.codec.images import Limits
from service.codec.reader import read_stream


@dataclass(frozen=True)
class SectionInfo:
    """Where a section's payload lies: bytes from the start, length in bytes, and the scale whole once it is read."""

    kind: str
    offset: int
    length: int
    scale: int | None


@dataclass(frozen=True)
class StreamInfo:
    """What a stream says of itself."""

    version: int
    model_id: str
    width: int
    height: int
    quality: float
    lossless: bool
    levels: int
    tiles: int
    sections: tuple[SectionInfo, ...]
    has_alpha: bool
    grey: bool
    icc_bytes: int
    exif_bytes: int
    total_bytes: int
    complete: bool
    conversion: str | None


def inspect(stream: bytes, limits: Limits = Limits()) -> StreamInfo:
    """Read a stream's header and sections; a head cut short is enough, `complete` says whether all was there."""
    read = read_stream(stream, limits, prefix=True)
    h = read.header
    sections = tuple(SectionInfo(p.section.kind, p.start, p.length, p.section.scale) for p in read.placed)
    return StreamInfo(
        version=container.VERSION,
        model_id=h.model_id,
        width=h.width,
        height=h.height,
        quality=h.quality,
        lossless=h.lossless,
        levels=lattice.levels_of(h.height, h.width),
        tiles=len(lattice.tiles_of(h.height, h.width)),
        sections=sections,
        has_alpha=bool(h.flags & ALPHA),
        grey=bool(h.flags & GREY),
        icc_bytes=len(read.payload("icc") or b""),
        exif_bytes=len(read.payload("exif") or b""),
        total_bytes=len(stream),
        complete=read.complete,
        conversion=None if h.form is None else h.form.conversion.name,
    )
