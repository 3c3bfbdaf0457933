"""Body + options -> result. What a worker thread does for one request; knows the codec, not HTTP.

Everything slow is in here: reading and writing images, the networks, entropy coding, the digest.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from service import codec
from service.cancellation import Cancellation
from service.codec.container import MAGIC
from service.drivers import Device
from service.schemas import (
    LOSSY_FORMATS,
    DecodeOptions,
    EncodeOptions,
    OutputFormat,
    ReEncodeOptions,
    StreamReport,
    TargetOptions,
)

STREAM_MEDIA_TYPE = "image/vnd.bijou"
IMAGE_MEDIA_TYPES: Mapping[OutputFormat, str] = {
    "png": "image/png",
    "webp": "image/webp",
    "jpeg": "image/jpeg",
    "tiff": "image/tiff",
    "avif": "image/avif",
}
IMAGE_QUALITY_DEFAULT = 90


@dataclass(frozen=True)
class Codec:
    """What operations need beside the request.

    Attributes:
        models: The models served.
        limits: The limits in force.
        device: Runs tile steps in batches; None: each runs at once, in the calling thread.
    """

    models: codec.ModelSet
    limits: codec.Limits
    device: Device | None = None

    def runner(self, cancel: Cancellation | None) -> codec.TileRunner:
        """Who runs a request's tile steps, until its token says stop."""
        return codec.DIRECT if self.device is None else self.device.runner(cancel or Cancellation())


@dataclass(frozen=True)
class Result:
    """A response body and what is known of it.

    Attributes:
        body: The bytes to send.
        media_type: Of the body.
        digest: SHA-256 of the body, base64.
        model_id: The model that was used.
        quality: Of the stream that was written or read.
        pixels: Of the picture that was worked on.
        seconds: Stage -> time.
        bits_per_pixel: Rate of the stream, container included; None if there is no stream in the result.
        psnr_db: Against the picture that was encoded; inf if equal; None if there is no stream in the result.
        stable: Whether a stable stream was reached; None if it was not asked for.
        changed: Of a re-encoding: whether the result differs from the input; None otherwise.
    """

    body: bytes
    media_type: str
    model_id: str
    quality: float
    pixels: int
    seconds: Mapping[str, float]
    bits_per_pixel: float | None = None
    psnr_db: float | None = None
    stable: bool | None = None
    changed: bool | None = None
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", base64.b64encode(hashlib.sha256(self.body).digest()).decode())


def is_stream(data: bytes) -> bool:
    """Whether the bytes start like a .bij; only then are they not taken for an image."""
    return data.startswith(MAGIC)


def encode(data: bytes, options: EncodeOptions, tools: Codec, cancel: Cancellation | None = None) -> Result:
    """Image bytes -> stream. Raises what read_image and encode of the codec raise, and the device's errors."""
    started = time.perf_counter()
    picture = codec.read_image(data, tools.limits, options.metadata)
    image_s = time.perf_counter() - started
    model = _model(options, tools) or tools.models.default
    target, runner = options.target() or codec.Target(), tools.runner(cancel)
    encoded = codec.encode(picture, model, target, options.stable, runner, effort=options.effort)
    return _stream(encoded, image_s, changed=None)


def re_encode(data: bytes, options: ReEncodeOptions, tools: Codec, cancel: Cancellation | None = None) -> Result:
    """Stream, or image, bytes -> stream. Raises what the codec raises, and OptionError for metadata of a stream."""
    if not is_stream(data):
        values = options.model_dump(exclude_none=True)
        result = encode(data, EncodeOptions.model_validate(values), tools, cancel)
        return replace(result, changed=True)
    if options.metadata is not None:
        raise codec.OptionError("metadata is for images; a stream keeps what it has")
    model = _model(options, tools)
    runner = tools.runner(cancel)
    encoded = codec.re_encode(
        data, tools.models, options.target(), tools.limits, options.stable, model, runner, effort=options.effort
    )
    return _stream(encoded, 0.0, changed=encoded.changed)


def decode(
    data: bytes,
    options: DecodeOptions,
    fmt: OutputFormat,
    tools: Codec,
    prefix: bool = False,
    cancel: Cancellation | None = None,
) -> Result:
    """Stream -> image bytes. Raises what the codec raises, and OptionError for the quality of a lossless format.

    With `prefix` the first part of a stream will do; the picture is then as large as that part allows.
    """
    if options.quality is not None and fmt not in LOSSY_FORMATS:
        raise codec.OptionError(f"quality is for {' and '.join(sorted(LOSSY_FORMATS))}; {fmt} is written losslessly")
    decoded = codec.decode(data, tools.models, tools.limits, options.scale, prefix, tools.runner(cancel))
    started = time.perf_counter()
    body = codec.write_image(decoded.picture, fmt, options.quality or IMAGE_QUALITY_DEFAULT)
    image_s = time.perf_counter() - started
    pixels = decoded.width * decoded.height
    seconds = {**decoded.seconds, "image": decoded.seconds.get("image", 0.0) + image_s}
    return Result(body, IMAGE_MEDIA_TYPES[fmt], decoded.model_id, decoded.quality, pixels, seconds)


def inspect(data: bytes, limits: codec.Limits) -> StreamReport:
    """Stream, or its head -> what it holds. Raises StreamError, LimitError."""
    return StreamReport.of(codec.inspect(data, limits))


def _model(options: TargetOptions, tools: Codec) -> codec.Model | None:
    return tools.models.by_name(options.model) if options.model else None


def _stream(encoded: codec.Encoded, image_s: float, changed: bool | None) -> Result:
    return Result(
        encoded.stream,
        STREAM_MEDIA_TYPE,
        encoded.model_id,
        encoded.quality,
        encoded.width * encoded.height,
        {**encoded.seconds, "image": encoded.seconds.get("image", 0.0) + image_s},
        encoded.bits_per_pixel,
        encoded.psnr_db,
        encoded.stable,
        changed,
    )
