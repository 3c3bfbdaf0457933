"""Other codecs, measured on the spot through Pillow: pixels <-> bytes of their own formats.

Every entry of the table has one shape, `Codec`, which Bijou takes too (bijou_codec.py), so that the measurements know
nothing about whom they measure. Settings are those of the figures everyone compares with: best effort within reason,
4:4:4 where the format has it. JPEG XL is there if the package pillow-jxl-plugin is.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image, features

Pixels = NDArray[np.uint8]
"""RGB, [H, W, 3]."""


@dataclass(frozen=True)
class Coded:
    """What an encoder hands over.

    Attributes:
        stream: The whole file, headers included.
        promised_db: RGB PSNR that the encoder says its decoder will reach (inf: exact); None if it says nothing.
    """

    stream: bytes
    promised_db: float | None = None


@dataclass(frozen=True)
class Codec:
    """A codec under measurement.

    Attributes:
        name: Short name, unique in a run.
        setting: Everything besides the quality that its files depend on, versions included; part of the cache's key.
        encode: (pixels, quality) -> file.
        decode: File -> pixels.
        qualities: Qualities of its rate-distortion curve, in its own scale; none for one that is only lossless.
        lossless_quality: The quality at which decoding must give the same pixels; None if there is none.
        generation_qualities: Qualities for the generation loss, near 33, 36.5 and 43 dB on Kodak.
        again: Encoder of the second and later generations, where it differs from the first.
        note: What a reader of its figures should know.
    """

    name: str
    setting: str
    encode: Callable[[Pixels, float], Coded]
    decode: Callable[[bytes], Pixels]
    qualities: tuple[float, ...] = ()
    lossless_quality: float | None = None
    generation_qualities: tuple[float, ...] = ()
    again: Callable[[Pixels, float], Coded] | None = None
    note: str = ""


def peers(threads: int = 1) -> dict[str, Codec]:
    """The table of the other codecs, by name.

    Args:
        threads: Threads of those that can use several (AVIF, JPEG XL).
    """
    pillow = f"Pillow {PIL.__version__}"
    entries = [
        Codec(
            "avif",
            f"libavif {features.version('avif')}, speed 6, 4:4:4, {pillow}",
            lambda p, q: _save(p, "AVIF", quality=int(q), speed=6, subsampling="4:4:4", max_threads=threads),
            lambda s: _open_avif(s, threads),
            qualities=(20, 35, 50, 65, 75, 85, 92, 97),
            generation_qualities=(50, 65, 92),
            note="its conversion from RGB moves colours by half a grey level in every generation "
            "(-0.53, +0.50, -0.56 in R, G, B), which costs 0.07 dB at 35 dB and 0.4 dB at 43 dB (Kodak)",
        ),
        Codec(
            "webp",
            f"libwebp {features.version('webp')}, method 6 (4:2:0), {pillow}",
            lambda p, q: _save(p, "WEBP", quality=int(q), method=6),
            _open,
            qualities=(5, 20, 40, 60, 80, 90, 95, 100),
            generation_qualities=(60, 80, 100),
        ),
        Codec(
            "jpeg",
            f"libjpeg-turbo {features.version('libjpeg_turbo')}, 4:4:4, optimised tables, {pillow}",
            lambda p, q: _save(p, "JPEG", quality=int(q), subsampling=0, optimize=True),
            _open,
            qualities=(5, 15, 30, 50, 70, 85, 92, 97),
            generation_qualities=(50, 85, 97),
        ),
        Codec(
            "jpeg2000",
            f"OpenJPEG {features.version('jpg_2000')}, 9/7, ICT, quality = compression ratio, {pillow}",
            lambda p, q: _save(p, "JPEG2000", irreversible=True, mct=1, quality_mode="rates", quality_layers=[q]),
            _open,
            qualities=(160, 80, 48, 32, 20, 12, 8, 5, 3),
        ),
        Codec(
            "webp-lossless",
            f"libwebp {features.version('webp')}, method 6, quality 100, {pillow}",
            lambda p, _: _save(p, "WEBP", lossless=True, quality=100, method=6),
            _open,
            lossless_quality=100,
        ),
        Codec("png", f"optimised, {pillow}", lambda p, _: _save(p, "PNG", optimize=True), _open, lossless_quality=100),
        *_jpeg_xl(threads),
    ]
    return {entry.name: entry for entry in entries}


def _jpeg_xl(threads: int) -> list[Codec]:
    try:
        plugin: Any = importlib.import_module("pillow_jxl.JpegXLImagePlugin")
    except ImportError:
        return []
    workers = 0 if threads == 1 else threads  # the plugin's word for "in the calling thread" is 0
    version = importlib.metadata.version("pillow-jxl-plugin")

    def decode(stream: bytes) -> Pixels:
        plugin.DECODE_THREADS = workers
        return _open(stream)

    return [
        Codec(
            "jxl",
            f"effort 7, pillow-jxl-plugin {version}",
            lambda p, q: _save(p, "JXL", quality=int(q), effort=7, num_threads=workers),
            decode,
            qualities=(20, 40, 60, 75, 85, 92, 96),
            generation_qualities=(60, 85, 96),
        ),
        Codec(
            "jxl-lossless",
            f"effort 7, pillow-jxl-plugin {version}",
            lambda p, _: _save(p, "JXL", lossless=True, effort=7, num_threads=workers),
            decode,
            lossless_quality=100,
        ),
    ]


def _save(pixels: Pixels, fmt: str, **options: object) -> Coded:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, fmt, **options)
    return Coded(out.getvalue())


def _open(stream: bytes) -> Pixels:
    with Image.open(io.BytesIO(stream)) as image:
        return np.asarray(image.convert("RGB"))


def _open_avif(stream: bytes, threads: int) -> Pixels:
    AvifImagePlugin.DEFAULT_MAX_THREADS = threads  # Pillow takes decoder options from this variable only
    return _open(stream)
