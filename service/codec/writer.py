"""Pixels -> stream at one quality code, tile by tile.

pixels -> lattice -> tile steps (analyse, encode) -> container -> bytes
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from service.codec import container, lattice, saturation
from service.codec.arrays import Bytes8, Floats
from service.codec.clock import Clock
from service.codec.container import ALPHA, EXIF, GREY, ICC, LOSSLESS, Header, crc32c
from service.codec.images import Picture
from service.codec.steps import Analyse, Encode, Run
from service.codec.tile import CodedTile
from service.codec.walk import Latent


@dataclass(frozen=True)
class Source:
    """What an encode starts from.

    Attributes:
        picture: The picture.
        latent: Each tile after the forward flow.
        alpha: The coded alpha.
        of_stream: Whether the latents come from a stream and not from the picture's pixels.
    """

    picture: Picture
    latent: Callable[[int], Latent]
    alpha: bytes | None
    of_stream: bool = False


def source_of(picture: Picture, unit: int, run: Run, alpha: bytes | None, keep: bool = False) -> Source:
    """The forward flow of every tile, run when the tile is asked for; keep: remember it, for several qualities."""
    tiles = lattice.tiles_of(*picture.pixels.shape[:2])

    def latent(index: int) -> Latent:
        t = tiles[index]
        with run.clock.room("image"):
            planes = lattice.to_planes(picture.pixels[t.top : t.top + t.height, t.left : t.left + t.width], unit)
        return run.step(Analyse(run.model, planes, unit))

    return Source(picture, functools.cache(latent) if keep else latent, alpha)


def write_stream(source: Source, code: int | None, run: Run) -> tuple[bytes, Bytes8]:
    """Code all tiles at one quality code (None: lossless) -> stream and the pixels it decodes to."""
    picture = source.picture
    pixels = picture.pixels if code is None else np.empty_like(picture.pixels)
    coded: list[tuple[bytes, ...]] = []
    for index, tile in enumerate(lattice.tiles_of(*pixels.shape[:2])):
        latent = source.latent(index)
        result = run.step(Encode(run.model, latent, code))
        if result.planes is not None:
            part = slice(tile.top, tile.top + tile.height), slice(tile.left, tile.left + tile.width)
            decode = functools.partial(_pixels_of, unit=latent.unit, grey=picture.grey, clock=run.clock)
            shown = result, decode(result)
            if code is not None and code <= saturation.LAST_CODE and not source.of_stream:
                again = functools.partial(_encode_planes, unit=latent.unit, code=code, run=run)
                shown = saturation.settle(shown, picture.pixels[part], latent.unit, again, decode)
            result, pixels[part] = shown
        coded.append(result.parts)
    with run.clock.room("image"):
        height, width = pixels.shape[:2]
        header = Header(_flags(picture, code), run.model.id, width, height, code or 0, crc32c(pixels.data))
    extras = {"icc": picture.icc, "exif": picture.exif, "alpha": source.alpha}
    sections = container.layout(header)
    payloads = [coded[s.tile][s.part] if s.kind == "part" else extras[s.kind] or b"" for s in sections]
    return container.write(header, payloads), pixels


def _pixels_of(coded: CodedTile, unit: int, grey: bool, clock: Clock) -> Bytes8:
    """What the decoder will show of a lossy tile."""
    assert coded.planes is not None
    with clock.room("image"):
        pixels = lattice.to_pixels(coded.planes, unit)
        return lattice.greyed(pixels) if grey else pixels


def _encode_planes(planes: Floats, unit: int, code: int | None, run: Run) -> CodedTile:
    return run.step(Encode(run.model, run.step(Analyse(run.model, planes, unit)), code))


def _flags(picture: Picture, code: int | None) -> int:
    flags = (LOSSLESS if code is None else 0) | (GREY if picture.grey else 0)
    flags |= (ICC if picture.icc else 0) | (EXIF if picture.exif else 0)
    return flags | (ALPHA if picture.alpha is not None else 0)


def encode_alpha(picture: Picture, run: Run) -> bytes | None:
    """A picture's opacity as a lossless grey stream of its own; None if it has none."""
    if picture.alpha is None:
        return None
    plane = Picture(np.repeat(picture.alpha[:, :, None], 3, axis=2), grey=True)
    return write_stream(source_of(plane, lattice.LOSSLESS_UNIT, run, None), None, run)[0]
