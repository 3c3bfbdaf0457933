"""(codec, quality, picture) -> figures, from real files that are decoded and compared.

Nothing is measured twice: figures are looked up in a cache (cache.py) by all that they depend on: kind, codec, its
setting, quality and SHA-256 of the picture's file.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass

import numpy as np

from model_export.cache import Cache
from model_export.metrics import TooSmallError, ms_ssim, psnr
from model_export.peers import Codec, Coded, Pixels
from model_export.samples import Sample

PROMISE_TOLERANCE_DB = 1e-3
"""The encoder may sum its errors in another order; more than this is another picture."""

GENERATIONS = (1, 2, 5, 10, 25, 50)
BEST_QUALITY = 100.0
"""No codec measured over generations has a quality above this."""
SWING = (0, 1, -1)
"""With a changing quality, generation after generation takes these multiples of the swing in turn."""


class BrokenPromiseError(RuntimeError):
    """Decoding did not give what the encoder reported."""


class NotLosslessError(BrokenPromiseError):
    """Decoding a lossless file gave other pixels."""


@dataclass(frozen=True)
class Point:
    """One picture through one codec at one quality.

    Attributes:
        size_bytes: The whole file.
        pixels: Number of pixels.
        psnr_db: RGB PSNR; inf if every pixel is the same.
        ms_ssim: None for a picture too small for the metric.
        encode_s: Wall-clock time; None if not timed.
        decode_s: Likewise.
    """

    size_bytes: int
    pixels: int
    psnr_db: float
    ms_ssim: float | None
    encode_s: float | None
    decode_s: float | None

    @property
    def bits_per_pixel(self) -> float:
        """Rate, headers included."""
        return 8 * self.size_bytes / self.pixels


@dataclass(frozen=True)
class Descent:
    """One picture, encoded and decoded through 8-bit pixels again and again, at one quality or around it.

    Attributes:
        first_bytes: File size of the first generation.
        last_bytes: File size of the last one.
        pixels: Number of pixels.
        psnr_db: RGB PSNR to the original, after each generation asked for.
        fixed_since: First generation whose pixels all later ones repeat; None if there is none, or none was looked for
            because the quality changed.
    """

    first_bytes: int
    last_bytes: int
    pixels: int
    psnr_db: tuple[float, ...]
    fixed_since: int | None


def measure_point(codec: Codec, quality: float, sample: Sample, cache: Cache, timed: bool = True) -> Point:
    """Encode and decode one picture, from the cache if it was done before.

    Raises:
        NotLosslessError: A lossless file gave other pixels.
        BrokenPromiseError: The picture has another size or PSNR than the encoder reported.
    """
    key = ["point", codec.name, codec.setting, float(quality), sample.digest]
    known = cache.get(key)
    if known is None:
        original = sample.pixels()
        start_s = time.perf_counter()
        coded = codec.encode(original, quality)
        encoded_s = time.perf_counter()
        decoded = codec.decode(coded.stream)
        decoded_s = time.perf_counter()
        reached_db = check_decoded(codec, quality, original, decoded, coded)
        known = {
            "size_bytes": len(coded.stream),
            "pixels": original.shape[0] * original.shape[1],
            "psnr_db": None if math.isinf(reached_db) else reached_db,
            "ms_ssim": 1.0 if math.isinf(reached_db) else _ms_ssim_or_none(original, decoded),
            "encode_s": encoded_s - start_s if timed else None,
            "decode_s": decoded_s - encoded_s if timed else None,
        }
        cache.put(codec.name, key, sample.name, known)
    return Point(**{**known, "psnr_db": _inf_for_none(known["psnr_db"])})


def measure_descent(
    codec: Codec,
    quality: float,
    sample: Sample,
    cache: Cache,
    generations: tuple[int, ...] = GENERATIONS,
    swing: float = 0.0,
) -> Descent:
    """Encode and decode one picture again and again, from the cache if it was done before.

    At a constant quality it stops early once the pixels repeat: the codecs are deterministic, so nothing changes any
    more.

    Args:
        codec: Its `again`, if any, encodes the second and later generations.
        quality: Of the first generation.
        sample: The original.
        cache: Where earlier figures are.
        generations: After which ones to take the PSNR, rising.
        swing: How far the quality of later generations moves, up and down in turn.
    """
    key = ["descent", codec.name, codec.setting, float(quality), sample.digest, list(generations)]
    key += [float(swing)] if swing else []
    known = cache.get(key)
    if known is None:
        known = asdict(_descend(codec, quality, sample.pixels(), generations, swing))
        known["psnr_db"] = [None if math.isinf(p) else p for p in known["psnr_db"]]
        cache.put(codec.name, key, sample.name, known)
    return Descent(**{**known, "psnr_db": tuple(_inf_for_none(p) for p in known["psnr_db"])})


def _descend(codec: Codec, quality: float, original: Pixels, generations: tuple[int, ...], swing: float) -> Descent:
    coded = codec.encode(original, quality)
    current = codec.decode(coded.stream)
    reached_db = [check_decoded(codec, quality, original, current, coded)]
    first_bytes, fixed_since = len(coded.stream), None
    for generation in range(2, generations[-1] + 1):
        own = min(BEST_QUALITY, quality + swing * SWING[(generation - 1) % len(SWING)])
        coded = (codec.again or codec.encode)(current, own)
        following = codec.decode(coded.stream)
        check_decoded(codec, own, current, following, coded)
        if not swing and np.array_equal(following, current):
            fixed_since = generation - 1
            break
        current = following
        reached_db.append(psnr(original, current))
    at = [reached_db[min(g, len(reached_db)) - 1] for g in generations]
    pixels = original.shape[0] * original.shape[1]
    return Descent(first_bytes, len(coded.stream), pixels, tuple(at), fixed_since)


def check_decoded(codec: Codec, quality: float, original: Pixels, decoded: Pixels, coded: Coded) -> float:
    """Compare a decoded picture with what was promised.

    Returns:
        RGB PSNR in dB, inf if every pixel is the same.

    Raises:
        NotLosslessError: The quality is the lossless one and a pixel differs.
        BrokenPromiseError: The size differs, or the PSNR from what the encoder reported.
    """
    what = f"{codec.name} at quality {quality:g}"
    if decoded.shape != original.shape:
        raise BrokenPromiseError(f"{what}: {original.shape} came back as {decoded.shape}")
    reached_db = psnr(original, decoded)
    if quality == codec.lossless_quality and not math.isinf(reached_db):
        differing = int(np.count_nonzero(np.any(original != decoded, axis=-1)))
        raise NotLosslessError(f"{what}: {differing} pixels differ")
    promised_db = coded.promised_db
    if promised_db is None or promised_db == reached_db:
        return reached_db
    if not abs(promised_db - reached_db) <= PROMISE_TOLERANCE_DB:
        raise BrokenPromiseError(f"{what}: encoder reported {promised_db} dB, decoder gave {reached_db} dB")
    return reached_db


def _ms_ssim_or_none(original: Pixels, decoded: Pixels) -> float | None:
    try:
        return ms_ssim(original, decoded)
    except TooSmallError:
        return None


def _inf_for_none(value: float | None) -> float:
    return math.inf if value is None else value
