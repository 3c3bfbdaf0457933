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

from service.codec import fixed_point, lattice
from service.codec.artifact import Model, ModelSet
from service.codec.clock import Clock
from service.codec.container import GREY, quality_of
from service.codec.errors import OptionError
from service.codec.images import Limits, Picture
from service.codec.reader import decode_alpha, pixels_of, reachable_scale, read_stream
from service.codec.steps import DIRECT, Run, TileRunner
from service.codec.target import Attempt, Target, aim, psnr_db
from service.codec.weigh import MOST_EFFORT, weighed
from service.codec.writer import Source, encode_alpha, source_of, write_stream

SCALES = (1, 2, 4, 8, 16)


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


def encode(
    picture: Picture,
    model: Model,
    target: Target = Target(),
    stable: bool = False,
    runner: TileRunner = DIRECT,
    effort: int = 0,
) -> Encoded:
    """Encode a picture.

    Args:
        picture: Any size from 1x1.
        model: What to encode with.
        target: What to aim at.
        stable: Repeat until decoding and encoding again gives the same stream.
        runner: Who runs the tile steps; its errors pass through.
        effort: How often rate and distortion are followed back through the codec, 0 ... MOST_EFFORT, to choose bins by
            what they cost elsewhere as well (`elsewhere`): smaller files, for more time. Of no use above quality 90,
            without loss, and for pictures that Bijou decoded.

    Raises:
        TargetError: The target cannot be met.
        OptionError: There is no such effort.
    """
    check_effort(effort)
    run = Run(model, runner, Clock())
    if picture.grey:
        picture = replace(picture, pixels=lattice.greyed(picture.pixels))
    alpha = encode_alpha(picture, run)
    searching = target.quality is None and target != Target()
    source = source_of(picture, lattice.LOSSY_UNIT, run, alpha, keep=searching)
    if effort:
        source = replace(source, elsewhere=functools.partial(weighed, picture.pixels, run=run, effort=effort))
    found = aim(target, _attempts(source, run), picture.pixels)
    settled = True if stable else None
    if stable and found.code is not None:
        found, settled = fixed_point.settle(found, found.code, source, run)
    return _encoded(found, source, run, settled)


def check_effort(effort: int) -> None:
    """Refuse an effort there is not."""
    if not 0 <= effort <= MOST_EFFORT:
        raise OptionError(f"effort must be 0 to {MOST_EFFORT}")


def _attempts(source: Source, run: Run) -> Callable[[int | None], Attempt]:
    """Code a source at any quality code; losslessness has a lattice of its own, so a forward flow of its own."""

    def attempt(code: int | None) -> Attempt:
        lossless = code is None
        used = source_of(source.picture, lattice.LOSSLESS_UNIT, run, source.alpha) if lossless else source
        return Attempt(code, *write_stream(used, code, run))

    return attempt


def _encoded(found: Attempt, source: Source, run: Run, settled: bool | None) -> Encoded:
    height, width = source.picture.pixels.shape[:2]
    return Encoded(
        stream=found.stream,
        quality=100.0 if found.code is None else quality_of(found.code),
        bits_per_pixel=len(found.stream) * 8 / (width * height),
        psnr_db=psnr_db(source.picture.pixels, found.pixels),
        stable=settled,
        changed=True,
        width=width,
        height=height,
        model_id=run.model.id,
        seconds=dict(run.clock.seconds),
    )


def decode(
    stream: bytes,
    models: ModelSet,
    limits: Limits = Limits(),
    scale: int = 1,
    prefix: bool = False,
    runner: TileRunner = DIRECT,
) -> Decoded:
    """Decode a stream.

    Args:
        stream: The .bij bytes.
        models: The models served.
        limits: What is refused.
        scale: Decode to 1/scale of the size: 1, 2, 4, 8 or 16. Small pictures have fewer levels; then the
            smallest there is comes back, and Decoded.scale says which.
        prefix: Accept a stream cut short and give the finest scale it holds whole, `scale` at the finest.
        runner: Who runs the tile steps; its errors pass through.

    Raises:
        StreamError: Not a stream, damaged, or of an unknown model.
        LimitError: Too large.
        OptionError: Not a scale.
    """
    if scale not in SCALES:
        raise OptionError("scale must be 1, 2, 4, 8 or 16")
    read = read_stream(stream, limits, prefix)
    h, run = read.header, Run(models.by_id(read.header.model_id), runner, Clock())
    scale = reachable_scale(read, scale)
    pixels, _ = pixels_of(read, run, scale, keep=False)
    alpha = decode_alpha(read, run, limits, scale)
    picture = Picture(pixels, alpha, bool(h.flags & GREY), read.payload("icc"), read.payload("exif"))
    return Decoded(picture, h.quality, h.width, h.height, scale, h.model_id, dict(run.clock.seconds))


def re_encode(
    stream: bytes,
    models: ModelSet,
    target: Target | None = None,
    limits: Limits = Limits(),
    stable: bool = False,
    model: Model | None = None,
    runner: TileRunner = DIRECT,
    effort: int = 0,
) -> Encoded:
    """Turn a stream into one of another quality.

    Args:
        stream: The .bij bytes.
        models: The models served.
        target: What to aim at; None, or the stream's own quality: the same bytes come back after a check.
        limits: What is refused.
        stable: As in `encode`.
        model: Model of the new stream, by default that of the old one.
        runner: Who runs the tile steps; its errors pass through.
        effort: As in `encode`.

    Raises:
        StreamError: Not a stream, damaged, or of an unknown model.
        LimitError: Too large.
        TargetError: The target cannot be met.
        OptionError: There is no such effort.

    Returns:
        The new stream. From a lossless stream it equals a direct encode; from a lossy one the latent is quantised
        again, without the forward flow and without rounding to pixels in between.
    """
    check_effort(effort)
    read = read_stream(stream, limits, prefix=False)
    h, old = read.header, models.by_id(read.header.model_id)
    new = model or old
    same_quality = target is None or target.quality == h.quality
    if same_quality and new.id == old.id and not stable:
        size = len(stream) * 8 / (h.width * h.height)
        return Encoded(stream, h.quality, size, math.inf, None, False, h.width, h.height, h.model_id, {})
    run = Run(old, runner, Clock())
    pixels, latent = pixels_of(read, run, 1, keep=True)
    alpha = decode_alpha(read, run, limits, 1)
    picture = Picture(pixels, alpha, bool(h.flags & GREY), read.payload("icc"), read.payload("exif"))
    wanted = target or Target(quality=h.quality)
    if h.lossless or wanted.quality == 100 or new.id != old.id or stable or picture.grey:
        result = encode(picture, new, wanted, stable, runner, effort)
    else:
        assert latent is not None
        kept = latent
        source = Source(picture, lambda: kept, read.payload("alpha"), of_stream=True)
        if effort:
            source = replace(source, elsewhere=functools.partial(weighed, pixels, run=run, effort=effort))
        result = _encoded(aim(wanted, _attempts(source, run), pixels), source, run, None)
    return replace(result, changed=result.stream != stream)
