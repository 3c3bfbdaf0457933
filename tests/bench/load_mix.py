"""The requests of the load generator: sizes and operations mixed, made on the spot, each with its bare library call."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from service import codec, operations
from service.operations import Codec
from service.schemas import DecodeOptions, EncodeOptions, ReEncodeOptions
from tests.bench.subjects import textured

DEFAULT_SIZES = ((64, 64), (128, 96), (256, 192), (512, 384))


@dataclass(frozen=True)
class Job:
    """One kind of request.

    Attributes:
        path: Route and options.
        body: What is posted.
        pixels: Of the picture.
        call: The same work by the library, in the calling thread.
    """

    path: str
    body: bytes
    pixels: int
    call: Callable[[], object]


def jobs_of(tools: Codec, sizes: Sequence[tuple[int, int]] = DEFAULT_SIZES) -> list[Job]:
    """Encode, encode losslessly, decode, decode smaller, re-encode and inspect, for each width and height."""
    return [job for index, size in enumerate(sizes) for job in _jobs(tools, *size, seed=index)]


def _jobs(tools: Codec, width: int, height: int, seed: int) -> list[Job]:
    file = io.BytesIO()
    Image.fromarray(textured(height, width, seed)).save(file, "PNG")
    png, pixels = file.getvalue(), width * height
    lossy, lossless, small = EncodeOptions(quality=60), EncodeOptions(quality=100), DecodeOptions(scale=2)
    lower = ReEncodeOptions(quality=30)
    stream = operations.encode(png, lossy, tools).body
    return [
        Job("/encode?quality=60", png, pixels, lambda: operations.encode(png, lossy, tools)),
        Job("/decode", stream, pixels, lambda: operations.decode(stream, DecodeOptions(), "png", tools)),
        Job("/encode?quality=100", png, pixels, lambda: operations.encode(png, lossless, tools)),
        Job("/decode?scale=2", stream, pixels, lambda: operations.decode(stream, small, "png", tools)),
        Job("/re-encode?quality=30", stream, pixels, lambda: operations.re_encode(stream, lower, tools)),
        Job("/inspect", stream, pixels, lambda: operations.inspect(stream, codec.Limits())),
    ]
