"""Pictures made on the spot, and streams taken apart and put together again with right checksums."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service import codec
from service.codec import container
from service.codec.centroids import DISTANCES, MAGNITUDES, Centroids

Pixels = NDArray[np.uint8]
LIMITS = codec.Limits()
MIDDLES = Centroids(np.zeros((MAGNITUDES, 70, DISTANCES), np.int8))
"""Points are where they would be without centroids."""


def pixels_of(height: int, width: int, seed: int = 0) -> Pixels:
    """Slopes, a hard edge and grain, [height, width, 3]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [128 + 90 * np.sin(rows / a + columns / b + seed) for a, b in ((19, 31), (23, 11), (41, 13))]
    picture = np.stack(waves, axis=2)
    picture[height // 3 : height // 2, width // 4 : width // 2] = (220, 40, 90)
    return np.clip(picture + rng.normal(size=(height, width, 1)) * 5, 0, 255).astype(np.uint8)


def centroids_of(seed: int) -> Centroids:
    """Points anywhere."""
    table = np.random.default_rng(seed).integers(-127, 128, MIDDLES.table.shape)
    table[0] = table[0] // 2 - table[0, :, ::-1] // 2
    return Centroids(table.astype(np.int8))


def picture_of(height: int, width: int, seed: int = 0) -> codec.Picture:
    """A colour picture without alpha."""
    return codec.Picture(pixels_of(height, width, seed))


def grey_of(height: int, width: int) -> codec.Picture:
    """A grey picture."""
    plane = pixels_of(height, width)[:, :, :1]
    return codec.Picture(np.repeat(plane, 3, axis=2), grey=True)


def alpha_of(height: int, width: int) -> Pixels:
    """Opacity from clear to full, [height, width]."""
    return (np.add.outer(np.arange(height), np.arange(width)) * 255 // max(1, height + width - 2)).astype(np.uint8)


def rich_of(height: int, width: int) -> codec.Picture:
    """A colour picture that brings every optional section."""
    return codec.Picture(pixels_of(height, width), alpha_of(height, width), icc=b"profile" * 9, exif=b"II*\x00" * 5)


def take_apart(stream: bytes) -> tuple[container.Header, list[bytes]]:
    """Header and payloads of a whole stream."""
    header, start = container.read_header(stream, LIMITS)
    placed, whole = container.read_sections(stream, header, start, LIMITS, prefix=False)
    assert whole
    return header, [stream[p.start : p.start + p.length] for p in placed]


def put_together(header: container.Header, payloads: list[bytes]) -> bytes:
    """The reverse of `take_apart`: every checksum is right again, whatever was changed."""
    return container.write(header, payloads)


def psnr_db(a: Pixels, b: Pixels) -> float:
    """Written apart from the codec's own."""
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))
