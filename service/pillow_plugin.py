"""Pillow images <-> `.bij`: `import service.pillow_plugin` registers the format BIJOU with Pillow.

    Image.open("x.bij")               modes L, LA, RGB, RGBA; draft() decodes to 1/2, 1/4, 1/8 or 1/16
    image.save("x.bij", quality=60)   or lossless, target_bpp, target_psnr, max_bytes; stable, effort, model, exif,
                                      icc_profile

Pillow finds no plugins by entry points, so the import is needed. The model is opened at the first load or save.
"""

from __future__ import annotations

import io
import threading
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from service import codec

FORMAT, EXTENSION, MEDIA_TYPE = "BIJOU", ".bij", "image/vnd.bijou"
MAGIC = b"\x8bBIJ\r\n\x1a\n"
EXIF_PREFIX = b"Exif\x00\x00"
RUNTIME = codec.RuntimeOptions(device="cpu")
"""How graphs are run; set it before the first load or save."""
LIMITS = codec.Limits(pixels=2**32, side=2**20, body_bytes=2**31)
"""Wide: Pillow has a limit of its own, Image.MAX_IMAGE_PIXELS."""
DRAFT_SCALES = (16, 8, 4, 2, 1)
REFUSED_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
TARGETS = {"target_bpp": "bits_per_pixel", "max_bytes": "max_bytes", "target_psnr": "psnr_db"}

_opened: list[codec.ModelSet] = []
_opening = threading.Lock()


def models() -> codec.ModelSet:
    """The shipped models, opened once."""
    with _opening:
        if not _opened:
            _opened.append(codec.shipped_models(RUNTIME))
    return _opened[0]


class BijouImageFile(ImageFile.ImageFile):
    """A `.bij` file; `info` has quality, lossless, model and, if present, icc_profile and exif."""

    format = FORMAT
    format_description = "Bijou"

    def _open(self) -> None:
        assert self.fp is not None
        self._stream = self.fp.read()
        try:
            self._facts = codec.inspect(self._stream, LIMITS)
        except (codec.StreamError, codec.LimitError) as error:
            raise SyntaxError(str(error)) from error  # what Pillow expects of a plugin that cannot read a file
        facts = self._facts
        self._size, self._full_size, self._scale = (facts.width, facts.height), (facts.width, facts.height), 1
        self._mode = ("L" if facts.grey else "RGB") + ("A" if facts.has_alpha else "")
        self.info |= {"quality": facts.quality, "lossless": facts.lossless, "model": facts.model_id}
        for section in facts.sections:
            if section.kind in ("icc", "exif"):
                payload = self._stream[section.offset : section.offset + section.length]
                self.info |= {"icc_profile": payload} if section.kind == "icc" else {"exif": EXIF_PREFIX + payload}
        self._set_tile()

    def _set_tile(self) -> None:
        self.tile = [ImageFile._Tile("raw", (0, 0, *self._size), 0, self.mode)]

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> tuple[str, tuple[int, int, float, float]] | None:
        """Decode to the smallest 1/1, 1/2 ... 1/16 that is no smaller than `size`; the mode stays as it is."""
        if not self.tile or size is None:
            return None
        width, height = self._full_size
        most = 1 << self._facts.levels if self._facts.tiles == 1 else DRAFT_SCALES[0]
        room = min(width // max(1, size[0]), height // max(1, size[1]), most)
        self._scale = next((s for s in DRAFT_SCALES if s <= room), 1)
        self._size = (-(-width // self._scale), -(-height // self._scale))
        self._set_tile()
        return self.mode, (0, 0, width / self._scale, height / self._scale)

    def verify(self) -> None:
        """Check that the file is whole and every section has its checksum; nothing is decoded."""
        complete = self._facts.complete
        super().verify()
        if not complete:
            raise OSError("image file is truncated")

    def load(self) -> Any:
        """Decode; OSError if the file is truncated or damaged, but see ImageFile.LOAD_TRUNCATED_IMAGES."""
        if self.tile and self._im is None:
            image = self._decoded()
            if self.fp and self._exclusive_fp:
                self.fp.close()
            self.fp = io.BytesIO(image.tobytes())
            self._stream = b""
        return super().load()

    def _decoded(self) -> Image.Image:
        whole = self._facts.complete
        if not (whole or ImageFile.LOAD_TRUNCATED_IMAGES):
            raise OSError("image file is truncated")
        try:
            decoded = codec.decode(self._stream, models(), LIMITS, self._scale, prefix=not whole)
        except codec.BijouError as error:
            raise OSError(str(error)) from error
        image = _image_of(decoded.picture).convert(self.mode)
        # What a truncated file holds may be a smaller picture.
        return image if image.size == self._size else image.resize(self._size, Image.Resampling.BICUBIC)

    def load_seek(self, pos: int) -> None:
        """Decoded pixels start at the beginning."""


def _image_of(picture: codec.Picture) -> Image.Image:
    pixels = picture.pixels[..., 0] if picture.grey else picture.pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    return image


def _save(image: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    options = image.encoderinfo
    if image.mode in REFUSED_MODES:
        raise OSError(f"cannot write mode {image.mode} as {FORMAT}")
    exif = options.get("exif")
    exif_bytes = exif.tobytes() if isinstance(exif, Image.Exif) else exif or b""
    icc = options.get("icc_profile", image.info.get("icc_profile"))
    upright, exif_bytes = _upright(image, exif_bytes)
    picture = _picture_of(upright, icc or None, exif_bytes.removeprefix(EXIF_PREFIX) or None)
    served = models()
    try:
        model = served.by_name(options["model"]) if options.get("model") else served.default
        stable = bool(options.get("stable", False))
        encoded = codec.encode(picture, model, _target(options), stable, effort=_effort(options))
    except (codec.OptionError, codec.TargetError, codec.UnknownModelError) as error:
        raise ValueError(str(error)) from error
    fp.write(encoded.stream)


def _target(options: dict[str, Any]) -> codec.Target:
    """What the stream aims at; `lossless` wins over `quality`, as for WebP."""
    if options.get("lossless"):
        return codec.Target(quality=100)
    names = {"quality": "quality", **TARGETS}
    values = {ours: options[theirs] for theirs, ours in names.items() if options.get(theirs) is not None}
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values.values()):
        raise ValueError(f"{', '.join(names)} must be numbers")
    return codec.Target(**values)


def _effort(options: dict[str, Any]) -> int:
    effort = options.get("effort")
    if isinstance(effort, bool) or effort not in (None, 0, 1, 2):
        raise ValueError("effort must be 0, 1 or 2")
    return int(effort or 0)


def _upright(image: Image.Image, exif_bytes: bytes) -> tuple[Image.Image, bytes]:
    """Turn the pixels as the EXIF data says and take the orientation out of it: the format has none."""
    exif = Image.Exif()
    exif.load(exif_bytes)
    orientation = exif.pop(ExifTags.Base.Orientation, None)
    if orientation is None:
        return image, exif_bytes
    turned = image.copy()
    turned.info.pop("exif", None)
    turned.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(turned), exif.tobytes() if len(exif) else b""


def _picture_of(image: Image.Image, icc: bytes | None, exif: bytes | None) -> codec.Picture:
    grey = image.mode in ("1", "L", "LA", "La") and "transparency" not in image.info
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        plane = np.asarray(image)[..., 3]
        alpha = np.ascontiguousarray(plane) if (plane < 255).any() else None
    return codec.Picture(np.asarray(image.convert("RGB")), alpha, grey, icc, exif)


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(MAGIC)


Image.register_open(FORMAT, BijouImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, EXTENSION)
Image.register_mime(FORMAT, MEDIA_TYPE)
