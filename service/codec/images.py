"""File bytes <-> pixels: PNG, JPEG, WebP, TIFF, BMP, GIF and AVIF through Pillow.

Sizes are checked from the header before any pixel is decoded. EXIF orientation is applied to the pixels and taken
out of the EXIF data. Palettes, grey, CMYK and YCbCr become RGB; 16-bit and floating-point pixels are refused
rather than cut down. Magic bytes decide the format, never names.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from service.codec.arrays import Bytes8
from service.codec.errors import InvalidImageError, LimitError, OptionError, UnsupportedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})
Metadata = Literal["none", "icc", "all"]
OutputFormat = Literal["png", "webp", "jpeg", "tiff", "avif"]
OUTPUT_FORMATS: tuple[OutputFormat, ...] = ("png", "webp", "jpeg", "tiff", "avif")
METADATA_BYTES = 4 * 2**20
ORIENTATION = 0x0112


@dataclass(frozen=True)
class Limits:
    """What is refused before any work is done.

    Attributes:
        pixels: Width times height.
        side: Width or height.
        body_bytes: Size of an image or stream.
    """

    pixels: int = 50_000_000
    side: int = 32_768
    body_bytes: int = 32 * 2**20

    def check(self, width: int, height: int) -> None:
        """Raise LimitError if a picture of this size is refused."""
        if max(width, height) > self.side:
            raise LimitError("side_pixels", max(width, height), self.side)
        if width * height > self.pixels:
            raise LimitError("pixels", width * height, self.pixels)


@dataclass(frozen=True)
class Picture:
    """A picture as the codec sees it.

    Attributes:
        pixels: Red, green, blue, [H, W, 3].
        alpha: Opacity, [H, W], or None if opaque throughout.
        grey: The three channels are equal and the source had one.
        icc: Colour profile.
        exif: EXIF data without orientation, starting at its TIFF header.
    """

    pixels: Bytes8
    alpha: Bytes8 | None = None
    grey: bool = False
    icc: bytes | None = None
    exif: bytes | None = None


def read_image(data: bytes, limits: Limits, metadata: Metadata = "icc") -> Picture:
    """Decode an image file.

    Args:
        data: The file.
        limits: What is refused.
        metadata: Which metadata is kept.

    Raises:
        UnsupportedImageError: Not an accepted format, more than one frame, or more than 8 bits a channel.
        LimitError: Too large.
        InvalidImageError: Corrupt or truncated.
    """
    if len(data) > limits.body_bytes:
        raise LimitError("body_bytes", len(data), limits.body_bytes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return _read(image, data, limits, metadata)
    except (UnsupportedImageError, LimitError):
        raise
    except UnidentifiedImageError:
        raise UnsupportedImageError(f"not an image this service reads; send one of {', '.join(FORMATS)}") from None
    except Exception as error:
        raise InvalidImageError("the image is corrupt or truncated; send a whole one") from error


def _read(image: Image.Image, data: bytes, limits: Limits, metadata: Metadata) -> Picture:
    limits.check(image.width, image.height)
    # Phones append previews to JPEG files (MPO); the first frame is the picture.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise UnsupportedImageError("the image has several frames; send a single one")
    depth = image.info.get("bit_depth") if image.format == "AVIF" else None
    bits = max(image.tag_v2.get(258, (8,))) if image.format == "TIFF" else 8  # type: ignore[attr-defined]
    if image.mode not in MODES or bits > 8 or (depth or 8) > 8 or _deep_png(data):
        raise UnsupportedImageError("the image has more than 8 bits a channel; convert it to 8 bits")
    image.load()
    icc = image.info.get("icc_profile") if metadata != "none" else None
    if image.mode in ("CMYK", "LAB"):
        icc = None
    upright = ImageOps.exif_transpose(image)
    upright = image if upright is None else upright
    exif = _exif(image) if metadata == "all" else None
    grey = upright.mode in ("1", "L", "LA", "La") and "transparency" not in upright.info
    alpha = None
    if upright.has_transparency_data:
        converted = upright.convert("RGBA")
        plane = np.asarray(converted)[..., 3]
        alpha = np.ascontiguousarray(plane) if (plane < 255).any() else None
        pixels = np.ascontiguousarray(np.asarray(converted)[..., :3])
        grey = bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all()) and (
            upright.mode in ("L", "LA", "La")
        )
    else:
        pixels = np.asarray(upright.convert("RGB"))
    return Picture(pixels, alpha, grey, _bounded(icc, "icc_bytes"), _bounded(exif, "exif_bytes"))


def _deep_png(data: bytes) -> bool:
    """Whether a file is a PNG of 16 bits a channel, which Pillow would silently cut to 8 (RGB, RGBA, LA)."""
    return data.startswith(b"\x89PNG") and data[24:25] == b"\x10"


def _exif(image: Image.Image) -> bytes | None:
    exif = image.getexif()
    if not exif:
        return None
    exif.pop(ORIENTATION, None)
    data = exif.tobytes()
    return data.removeprefix(b"Exif\x00\x00") if len(exif) else None


def _bounded(data: bytes | None, name: str) -> bytes | None:
    if data and len(data) > METADATA_BYTES:
        raise LimitError(name, len(data), METADATA_BYTES)
    return data or None


def write_image(picture: Picture, fmt: OutputFormat = "png", quality: int = 90) -> bytes:
    """Encode an image file; PNG, WebP and TIFF are lossless.

    Args:
        picture: What to write. JPEG has no alpha: it is laid over white.
        fmt: Format.
        quality: 1 ... 100, of JPEG and AVIF.

    Raises:
        OptionError: Unknown format or quality.
    """
    if fmt not in OUTPUT_FORMATS or not 1 <= quality <= 100:
        raise OptionError(f"format must be one of {', '.join(OUTPUT_FORMATS)} and quality 1 to 100")
    image = _compose(picture, with_alpha=fmt != "jpeg")
    options: dict[str, object] = {}
    if picture.icc:
        options["icc_profile"] = picture.icc
    if picture.exif:
        options["exif"] = b"Exif\x00\x00" + picture.exif
    if fmt == "webp":
        options |= {"lossless": True, "exact": True, "quality": 50}
    elif fmt == "jpeg":
        options |= {"quality": quality, "subsampling": 0}
    elif fmt == "avif":
        options |= {"quality": quality, "subsampling": "4:4:4", "max_threads": 1}
    elif fmt == "tiff":
        options |= {"compression": "tiff_adobe_deflate"}
    elif fmt == "png":
        options |= {"compress_level": 4}
    buffer = io.BytesIO()
    image.save(buffer, fmt.upper(), **options)
    return buffer.getvalue()


def _compose(picture: Picture, with_alpha: bool) -> Image.Image:
    image = Image.fromarray(picture.pixels)
    if picture.grey:
        image = Image.fromarray(np.ascontiguousarray(picture.pixels[..., 0]))
    if picture.alpha is None:
        return image
    image.putalpha(Image.fromarray(picture.alpha))
    if with_alpha:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
