"""The corridor: pictures <-> streams, one line per room.

encode     pixels -> lattice -> flow -> quantise -> prior -> entropy -> container
decode     the same rooms backwards
re_encode  stream -> latent -> quantise ...: no forward flow, no pixels in between
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from service.codec import container, lattice
from service.codec.arrays import Bytes8, Floats
from service.codec.artifact import Model, ModelSet
from service.codec.container import ALPHA, EXIF, GREY, ICC, LAST_CODE, LOSSLESS, Header, Placed, crc32c
from service.codec.errors import CorruptStreamError, OptionError, TargetError
from service.codec.images import Limits, Picture
from service.codec.tile import Clock, Latent, analyse, decode_tile, encode_tile

DEFAULT_QUALITY = 75.0
SCALES = (1, 2, 4, 8, 16)
STABLE_ROUNDS = 16
"""Most decode/encode rounds `stable` tries."""


@dataclass(frozen=True)
class Target:
    """What an encode aims at; at most one is set, none means quality 75.

    Attributes:
        quality: 1 ... 99 in steps of 1/8, or 100: lossless.
        bits_per_pixel: The best quality whose stream is no larger.
        max_bytes: The best quality whose stream is no larger.
        psnr_db: The lowest quality that reaches it.
    """

    quality: float | None = None
    bits_per_pixel: float | None = None
    max_bytes: int | None = None
    psnr_db: float | None = None

    def __post_init__(self) -> None:
        given = [v for v in (self.quality, self.bits_per_pixel, self.max_bytes, self.psnr_db) if v is not None]
        if len(given) > 1:
            raise OptionError("give one of quality, target_bpp, max_bytes and target_psnr, not several")
        if any(not math.isfinite(v) or v <= 0 for v in given):
            raise OptionError("a target must be a positive number")
        quality = self.quality
        if quality is not None and (not (1 <= quality <= 99 or quality == 100) or quality * 8 != int(quality * 8)):
            raise OptionError("quality must be 1 to 99 in steps of 1/8, or 100 for lossless")


@dataclass(frozen=True)
class Encoded:
    """A stream and what is known of it.

    Attributes:
        stream: The .bij bytes.
        quality: 1 ... 99, or 100.
        bits_per_pixel: Of the whole stream.
        psnr_db: Of the decoded pixels against the given ones, all channels together; inf if lossless. After a
            re-encode without pixels it compares with the picture the given stream decodes to.
        stable: Whether decoding and encoding again gives this very stream; None if not asked.
        changed: Whether a re-encode gave other bytes than it was given.
        width: Pixels.
        height: Pixels.
        model_id: Of the model that made it.
        seconds: Spent in each room.
    """

    stream: bytes
    quality: float
    bits_per_pixel: float
    psnr_db: float
    stable: bool | None
    changed: bool
    width: int
    height: int
    model_id: str
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Decoded:
    """A picture out of a stream.

    Attributes:
        picture: At 1/scale of the full size.
        quality: Of the stream.
        width: Of the full picture.
        height: Of the full picture.
        scale: 1, 2, 4, 8 or 16.
        model_id: Of the stream.
        seconds: Spent in each room.
    """

    picture: Picture
    quality: float
    width: int
    height: int
    scale: int
    model_id: str
    seconds: Mapping[str, float]


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


@dataclass(frozen=True)
class _Source:
    """What an encode starts from: the picture, each tile after the forward flow, and the coded alpha."""

    picture: Picture
    latent: Callable[[int], Latent]
    alpha: bytes | None


def _analyse(
    picture: Picture, model: Model, unit: int, clock: Clock, alpha: bytes | None, keep: bool = False
) -> _Source:
    """The forward flow of every tile, run when the tile is asked for; keep: remember it, for several qualities."""
    tiles = lattice.tiles_of(*picture.pixels.shape[:2])

    def latent(index: int) -> Latent:
        t = tiles[index]
        with clock.room("image"):
            planes = lattice.to_planes(picture.pixels[t.top : t.top + t.height, t.left : t.left + t.width], unit)
        return analyse(planes, model, unit, clock)

    return _Source(picture, functools.cache(latent) if keep else latent, alpha)


def _write(source: _Source, model: Model, code: int | None, clock: Clock) -> tuple[bytes, Bytes8]:
    """Code all tiles at one quality code (None: lossless) -> stream and the pixels it decodes to."""
    picture = source.picture
    height, width = picture.pixels.shape[:2]
    pixels = picture.pixels if code is None else np.empty_like(picture.pixels)
    coded: list[tuple[bytes, ...]] = []
    for index, tile in enumerate(lattice.tiles_of(height, width)):
        latent = source.latent(index)
        result = encode_tile(latent, model, code, clock)
        if result.planes is not None:
            with clock.room("image"):
                view = pixels[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
                view[:] = lattice.to_pixels(result.planes, latent.unit)
        coded.append(result.parts)
    if picture.grey:
        pixels = lattice.greyed(pixels)
    extras = {"icc": picture.icc, "exif": picture.exif, "alpha": source.alpha}
    flags = LOSSLESS if code is None else 0
    flags |= (GREY if picture.grey else 0) | (ICC if picture.icc else 0) | (EXIF if picture.exif else 0)
    flags |= ALPHA if picture.alpha is not None else 0
    with clock.room("image"):
        header = Header(flags, model.id, width, height, code or 0, crc32c(pixels.data))
    sections = container.layout(header)
    payloads = [coded[s.tile][s.part] if s.kind == "part" else extras[s.kind] or b"" for s in sections]
    return container.write(header, payloads), pixels


def _encode_alpha(picture: Picture, model: Model, clock: Clock) -> bytes | None:
    """Alpha is a lossless grey stream of its own."""
    if picture.alpha is None:
        return None
    plane = Picture(np.repeat(picture.alpha[:, :, None], 3, axis=2), grey=True)
    return _write(_analyse(plane, model, lattice.LOSSLESS_UNIT, clock, None), model, None, clock)[0]


def encode(picture: Picture, model: Model, target: Target = Target(), stable: bool = False) -> Encoded:
    """Encode a picture.

    Args:
        picture: Any size from 1x1.
        model: What to encode with.
        target: What to aim at.
        stable: Repeat until decoding and encoding again gives the same stream.

    Raises:
        TargetError: The target cannot be met.
    """
    clock = Clock()
    if picture.grey:
        picture = replace(picture, pixels=lattice.greyed(picture.pixels))
    alpha = _encode_alpha(picture, model, clock)
    if target.quality == 100:
        source = _analyse(picture, model, lattice.LOSSLESS_UNIT, clock, alpha)
        stream, pixels = _write(source, model, None, clock)
        return _encoded(stream, None, pixels, picture, model, clock, True if stable else None)
    searching = target.quality is None and target != Target()
    source = _analyse(picture, model, lattice.LOSSY_UNIT, clock, alpha, keep=searching)
    code, stream, pixels = _aim(source, model, target, clock)
    if code is None:
        return _encoded(stream, None, pixels, picture, model, clock, True if stable else None)
    settled = None
    if stable:
        stream, pixels, settled = _settle(stream, pixels, source, model, code, clock)
    return _encoded(stream, code, pixels, picture, model, clock, settled)


def _settle(
    stream: bytes, pixels: Bytes8, source: _Source, model: Model, code: int, clock: Clock
) -> tuple[bytes, Bytes8, bool]:
    """Decode and encode until the stream stays the same."""
    for _ in range(STABLE_ROUNDS):
        again = _analyse(replace(source.picture, pixels=pixels), model, lattice.LOSSY_UNIT, clock, source.alpha)
        following, pixels = _write(again, model, code, clock)
        if following == stream:
            return stream, pixels, True
        stream = following
    return stream, pixels, False


def _encoded(
    stream: bytes, code: int | None, pixels: Bytes8, picture: Picture, model: Model, clock: Clock, settled: bool | None
) -> Encoded:
    height, width = picture.pixels.shape[:2]
    return Encoded(
        stream=stream,
        quality=100.0 if code is None else container.quality_of(code),
        bits_per_pixel=len(stream) * 8 / (width * height),
        psnr_db=psnr_db(picture.pixels, pixels),
        stable=settled,
        changed=True,
        width=width,
        height=height,
        model_id=model.id,
        seconds=dict(clock.seconds),
    )


def psnr_db(a: Bytes8, b: Bytes8) -> float:
    """Peak signal-to-noise ratio of two pictures in dB, all channels together; inf if they are equal."""
    difference = a.astype(np.int16) - b
    squares = int(np.square(difference, dtype=np.int32).sum(dtype=np.int64))
    return math.inf if squares == 0 else 10 * math.log10(255**2 * difference.size / squares)


Attempt = tuple[int | None, bytes, Bytes8]


def _aim(source: _Source, model: Model, target: Target, clock: Clock) -> Attempt:
    """Find the quality code a target asks for and code the picture at it (None: lossless)."""

    def attempt(code: int) -> Attempt:
        return (code, *_write(source, model, code, clock))

    if target.psnr_db is not None:
        wanted = target.psnr_db
        found = _search(attempt, lambda a: psnr_db(source.picture.pixels, a[2]) >= wanted, lowest=True)
        if found is None:
            lossless = _analyse(source.picture, model, lattice.LOSSLESS_UNIT, clock, source.alpha)
            return (None, *_write(lossless, model, None, clock))
        return found
    budget = target.max_bytes
    if target.bits_per_pixel is not None:
        budget = int(target.bits_per_pixel * source.picture.pixels[..., 0].size / 8)
    if budget is not None:
        found = _search(attempt, lambda a: len(a[1]) <= budget, lowest=False)
        if found is None:
            smallest = len(attempt(0)[1])
            raise TargetError(f"the smallest stream of this picture has {smallest} bytes; allow at least that many")
        return found
    return attempt(container.code_of(DEFAULT_QUALITY if target.quality is None else target.quality))


def _search(attempt: Callable[[int], Attempt], good: Callable[[Attempt], bool], lowest: bool) -> Attempt | None:
    """Bisect the quality codes for the lowest, or highest, good one; None if there is none."""
    first, last, best = 0, LAST_CODE, None
    while first <= last:
        middle = (first + last) // 2
        tried = attempt(middle)
        fits = good(tried)
        if fits:
            best = tried
        if fits == lowest:
            last = middle - 1
        else:
            first = middle + 1
    return best


@dataclass(frozen=True)
class _Read:
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


def _read(stream: bytes, limits: Limits, prefix: bool) -> _Read:
    header, start = container.read_header(stream, limits)
    placed, complete = container.read_sections(stream, header, start, limits, prefix)
    return _Read(header, placed, complete, stream)


def decode(stream: bytes, models: ModelSet, limits: Limits = Limits(), scale: int = 1, prefix: bool = False) -> Decoded:
    """Decode a stream.

    Args:
        stream: The .bij bytes.
        models: The models served.
        limits: What is refused.
        scale: Decode to 1/scale of the size: 1, 2, 4, 8 or 16. Small pictures have fewer levels; then the
            smallest there is comes back, and Decoded.scale says which.
        prefix: Accept a stream cut short and give the finest scale it holds whole, `scale` at the finest.

    Raises:
        StreamError: Not a stream, damaged, or of an unknown model.
        LimitError: Too large.
        OptionError: Not a scale.
    """
    if scale not in SCALES:
        raise OptionError("scale must be 1, 2, 4, 8 or 16")
    clock, read = Clock(), _read(stream, limits, prefix)
    model = models.by_id(read.header.model_id)
    scale = _reachable_scale(read, scale)
    pixels, _ = _pixels_of(read, model, scale, clock, keep=False)
    alpha_stream = read.payload("alpha")
    alpha = _decode_alpha(alpha_stream, read.header, models, limits, scale, clock) if alpha_stream is not None else None
    picture = Picture(pixels, alpha, bool(read.header.flags & GREY), read.payload("icc"), read.payload("exif"))
    h = read.header
    return Decoded(picture, h.quality, h.width, h.height, scale, h.model_id, dict(clock.seconds))


def _reachable_scale(read: _Read, scale: int) -> int:
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


def _pixels_of(read: _Read, model: Model, scale: int, clock: Clock, keep: bool) -> tuple[Bytes8, tuple[Latent, ...]]:
    """Pixels at 1/scale, checked against the stream's CRC at full size, and the tiles' latents if they are kept."""
    h = read.header
    unit = lattice.LOSSLESS_UNIT if h.lossless else lattice.LOSSY_UNIT
    code = None if h.lossless else h.code
    pixels = np.empty((-(-h.height // scale), -(-h.width // scale), 3), np.uint8)
    latents = []
    for index, tile in enumerate(lattice.tiles_of(h.height, h.width)):
        levels = lattice.levels_of(tile.height, tile.width)
        stop = min(levels, scale.bit_length() - 1)
        parts = read.parts(index)
        needed = [p for p in range(len(parts)) if p == 0 or container.part_scale(levels, p) >= 1 << stop]
        planes, latent = decode_tile(
            [parts[p] for p in needed], model, code, (tile.height, tile.width), unit, stop, clock
        )
        if keep:
            latents.append(latent)
        with clock.room("image"):
            small = _small_pixels(planes, model, stop, unit) if stop else lattice.to_pixels(planes, unit)
            top, left = tile.top // scale, tile.left // scale
            view = pixels[top : top + small.shape[0], left : left + small.shape[1]]
            extra = scale >> stop
            view[:] = small[::extra, ::extra][: view.shape[0], : view.shape[1]]
    if h.flags & GREY:
        pixels = lattice.greyed(pixels)
    if scale == 1 and crc32c(pixels.data) != h.pixel_crc:
        raise CorruptStreamError("the decoded pixels do not have the stream's checksum; the stream is damaged")
    return pixels, tuple(latents)


def _small_pixels(low: Floats, model: Model, stop: int, unit: int) -> Bytes8:
    """Low-pass below level stop - 1 -> pixels: its constant offset and gain are taken out, in whole numbers."""
    gain, offsets = (t[stop - 1][:, None, None] for t in (model.tables.low_gains, model.tables.low_offsets))
    wide = (low[0].astype(np.int64) << 20) - offsets * unit
    y, cg, co = (2 * wide + gain * unit) // (2 * gain * unit)
    t = y - (cg >> 1)
    b = t - (co >> 1)
    rgb = np.stack([co + b, cg + t, b], -1) + lattice.CENTRE
    pixels: Bytes8 = np.clip(rgb, 0, 255).astype(np.uint8)
    return pixels


def _decode_alpha(stream: bytes, outer: Header, models: ModelSet, limits: Limits, scale: int, clock: Clock) -> Bytes8:
    read = _read(stream, limits, prefix=False)
    h = read.header
    if (h.width, h.height, h.flags, h.model_id) != (outer.width, outer.height, LOSSLESS | GREY, outer.model_id):
        raise CorruptStreamError("the alpha section does not fit its picture; the stream is damaged")
    pixels, _ = _pixels_of(read, models.by_id(h.model_id), scale, clock, keep=False)
    return np.ascontiguousarray(pixels[..., 0])


def re_encode(
    stream: bytes,
    models: ModelSet,
    target: Target | None = None,
    limits: Limits = Limits(),
    stable: bool = False,
    model: Model | None = None,
) -> Encoded:
    """Turn a stream into one of another quality.

    Args:
        stream: The .bij bytes.
        models: The models served.
        target: What to aim at; None, or the stream's own quality: the same bytes come back after a check.
        limits: What is refused.
        stable: As in `encode`.
        model: Model of the new stream, by default that of the old one.

    Returns:
        The new stream. From a lossless stream it equals a direct encode; from a lossy one the latent is quantised
        again, without the forward flow and without rounding to pixels in between.
    """
    clock, read = Clock(), _read(stream, limits, prefix=False)
    h = read.header
    old = models.by_id(h.model_id)
    new = model or old
    same_quality = target is None or target.quality == h.quality
    if same_quality and new.id == old.id and not stable:
        size = len(stream) * 8 / (h.width * h.height)
        seconds = dict(clock.seconds)
        return Encoded(stream, h.quality, size, math.inf, None, False, h.width, h.height, h.model_id, seconds)
    pixels, latents = _pixels_of(read, old, 1, clock, keep=True)
    alpha_stream = read.payload("alpha")
    alpha = _decode_alpha(alpha_stream, h, models, limits, 1, clock) if alpha_stream is not None else None
    picture = Picture(pixels, alpha, bool(h.flags & GREY), read.payload("icc"), read.payload("exif"))
    wanted = target or Target(quality=h.quality)
    if h.lossless or wanted.quality == 100 or new.id != old.id or stable or picture.grey:
        result = encode(picture, new, wanted, stable)
        return replace(result, changed=result.stream != stream)
    code, written, decoded = _aim(_Source(picture, latents.__getitem__, alpha_stream), new, wanted, clock)
    result = _encoded(written, code, decoded, picture, new, clock, None)
    return replace(result, changed=written != stream)


def inspect(stream: bytes, limits: Limits = Limits()) -> StreamInfo:
    """Read a stream's header and sections; a head cut short is enough, `complete` says whether all was there."""
    read = _read(stream, limits, prefix=True)
    h = read.header
    tiles = lattice.tiles_of(h.height, h.width)
    sections = tuple(SectionInfo(p.section.kind, p.start, p.length, p.section.scale) for p in read.placed)
    return StreamInfo(
        version=container.VERSION,
        model_id=h.model_id,
        width=h.width,
        height=h.height,
        quality=h.quality,
        lossless=h.lossless,
        levels=max(lattice.levels_of(t.height, t.width) for t in tiles),
        tiles=len(tiles),
        sections=sections,
        has_alpha=bool(h.flags & ALPHA),
        grey=bool(h.flags & GREY),
        icc_bytes=len(read.payload("icc") or b""),
        exif_bytes=len(read.payload("exif") or b""),
        total_bytes=len(stream),
        complete=read.complete,
    )
