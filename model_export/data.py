"""Folders and tar files of pictures -> random crops.

Pictures are decoded once and kept as bytes; crops are cut from them at random places, flipped, turned, and now
and then halved in size, so that one set of pictures shows several scales. Some lose half of their chroma's resolution,
as most photographs have at some time, in a JPEG file or a scanner, and pictures that were reduced since then no longer
show; some are given grain, which film and sensors have and reduced pictures have lost. A few lose their colours.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from service.codec.conversion import JPEG, PHOTO_CD, WEBP, Conversion
from service.codec.forms import lifted
from service.codec.lattice import CENTRE

SUFFIXES = (".png", ".webp", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
HALVED_SHARE = 0.15
"""Share of crops cut twice as large and averaged down."""
GRAINED_SHARE = 0.4
"""Share of crops with grain."""
GRAIN_RANGE = (0.5, 5.0)
"""Least and greatest standard deviation of grain, in grey levels; even in its logarithm."""
GREY_SHARE = 0.04
"""Share of crops made grey."""
SUBSAMPLED_SHARE = 0.5
"""Share of crops whose chroma is subsampled and interpolated again."""
ROWS_KEPT_SHARE = 0.25
"""Share of these that keep all rows: 4:2:2 instead of 4:2:0."""
CONVERSION_SHARES = {JPEG: 0.5, WEBP: 0.2, PHOTO_CD: 0.3}
"""How often each conversion is undone, of the batches in which one is."""
INTERPOLATIONS, INTERPOLATION_SHARES = ("co-sited", "centred", "repeated"), (0.5, 0.25, 0.25)
TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
"""JFIF's Y, Cb and Cr of red, green and blue."""
FROM_YCC = np.linalg.inv(TO_YCC)

Picture = NDArray[np.uint8]


T = TypeVar("T")


def evenly(items: Sequence[T], count: int) -> list[T]:
    """So many of them, or all if there are fewer, from the first on at equal distances."""
    return list(items[:: max(1, len(items) // count)][:count])


class NoPicturesError(ValueError):
    """The given places hold no picture that can be used."""


def read_pictures(places: list[Path], smallest_side: int = 1) -> list[Picture]:
    """Decode every picture of folders, tar files and single files, in the order of their names.

    Args:
        places: Folders (searched through), `.tar` files and picture files.
        smallest_side: Pictures with a shorter side are left out.

    Returns:
        RGB pictures, [H, W, 3] bytes.

    Raises:
        NoPicturesError: Nothing was found.
    """
    found = [p for place in places for p in _files(place)]
    pictures = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in found]
    usable = [p for p in pictures if min(p.shape[:2]) >= smallest_side]
    if not usable:
        raise NoPicturesError(f"no picture of at least {smallest_side} px in {', '.join(map(str, places))}")
    return usable


def _files(place: Path) -> Iterator[bytes]:
    if place.suffix == ".tar":
        with tarfile.open(place) as tar:
            for member in sorted(tar.getmembers(), key=lambda m: m.name):
                handle = tar.extractfile(member) if member.name.lower().endswith(SUFFIXES) else None
                if handle is not None:
                    yield handle.read()
    elif place.is_dir():
        for path in sorted(place.rglob("*")):
            if path.suffix.lower() in SUFFIXES or path.suffix == ".tar":
                yield from _files(path)
    else:
        yield place.read_bytes()


def synthetic_pictures(count: int, side: int, seed: int = 0) -> list[Picture]:
    """Smooth gradients, edges and texture, for tests and for trying the path without photographs."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side] / side
    pictures = []
    for _ in range(count):
        planes = []
        base = rng.normal(size=(3, 4))
        for channel in range(3):
            a, b, c, d = base[channel] * 60
            plane = 128 + a * rows + b * columns + c * np.sin(12 * rows * d / 30 + 9 * columns)
            planes.append(plane)
        picture = np.stack(planes, -1)
        top, left = rng.integers(0, side // 2, 2)
        picture[top : top + side // 3, left : left + side // 2] += rng.normal(size=3) * 50
        grain = rng.normal(size=(side, side, 1)) * rng.uniform(1, 8)
        pictures.append(np.clip(np.rint(picture + grain), 0, 255).astype(np.uint8))
    return pictures


def crop(picture: Picture, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One random crop, [side, side, 3], of fewer colours now and then, flipped and turned at random."""
    cut = side
    if min(picture.shape[:2]) >= 2 * side and rng.random() < HALVED_SHARE:
        cut = 2 * side
    top, left = (int(rng.integers(0, n - cut + 1)) for n in picture.shape[:2])
    piece = picture[top : top + cut, left : left + cut]
    if cut > side:
        wide = piece.reshape(side, 2, side, 2, 3).astype(np.uint16)
        piece = ((wide.sum((1, 3), dtype=np.uint16) + 2) // 4).astype(np.uint8)
    if rng.random() < GRAINED_SHARE:
        piece = grained(piece, float(np.exp(rng.uniform(*np.log(GRAIN_RANGE)))), rng)
    if rng.random() < GREY_SHARE:
        piece = greyed(piece)
    elif rng.random() < SUBSAMPLED_SHARE:
        axes = (1,) if rng.random() < ROWS_KEPT_SHARE else (0, 1)
        piece = subsampled(piece, axes, INTERPOLATIONS[rng.choice(len(INTERPOLATIONS), p=INTERPOLATION_SHARES)])
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    if rng.random() < 0.25:
        piece = piece.transpose(1, 0, 2)
    return piece


def grained(picture: Picture, deviation: float, rng: np.random.Generator) -> Picture:
    """A picture, [H, W, 3], with grain as film and sensors make it.

    Common to the colours in part, soft or crisp, evenly strong or stronger where it is bright: each at random.

    Args:
        picture: RGB.
        deviation: Standard deviation of the grain of each colour at half of the full brightness, in grey levels.
        rng: Where the grain comes from.
    """
    height, width, _ = picture.shape
    own, even, side = rng.random(), rng.random(), np.float32(rng.uniform(0, 0.25))
    common, colours = (
        rng.standard_normal((height, width, 1), np.float32),
        rng.standard_normal(picture.shape, np.float32),
    )
    grain = np.float32(np.sqrt(1 - own)) * common + np.float32(np.sqrt(own)) * colours
    for axis in (0, 1):
        grain = (1 - 2 * side) * grain + side * (np.roll(grain, 1, axis) + np.roll(grain, -1, axis))
    whole = (1 - 2 * side) ** 2 + 2 * side**2  # variance left by either axis
    brightness = picture.mean(-1, keepdims=True, dtype=np.float32) / 128
    strength = np.float32(deviation / whole) * np.sqrt(even + (1 - even) * brightness)
    return np.clip(np.rint(picture + strength * grain), 0, 255).astype(np.uint8)


def greyed(picture: Picture) -> Picture:
    """A picture, [H, W, 3], without its colours."""
    return np.repeat(np.rint(picture @ TO_YCC[0]).astype(np.uint8)[..., None], 3, -1)


def subsampled(picture: Picture, axes: tuple[int, ...], interpolation: str) -> Picture:
    """A picture, [H, W, 3] of even sides, as it comes back from half as much chroma.

    Args:
        picture: RGB.
        axes: Axes along which chroma is halved.
        interpolation: `co-sited`: every other sample is kept (of the mean with its neighbours), those between are the
            mean of two; `centred`: means of two, between them three parts of the nearer and one of the other, as JPEG
            decoders do; `repeated`: means of two, twice.
    """
    ycc = picture @ TO_YCC.T
    chroma = ycc[..., 1:]
    for axis in axes:
        chroma = np.moveaxis(_fewer(np.moveaxis(chroma, axis, 0), interpolation), 0, axis)
    chroma = np.rint(chroma)
    for axis in axes:
        chroma = np.moveaxis(_more(np.moveaxis(chroma, axis, 0), interpolation), 0, axis)
    ycc = np.rint(np.concatenate([ycc[..., :1], chroma], -1))
    return np.clip(np.rint(ycc @ FROM_YCC.T), 0, 255).astype(np.uint8)


def _fewer(samples: NDArray[np.float64], interpolation: str) -> NDArray[np.float64]:
    """Every other sample along the first axis."""
    even, odd = samples[::2], samples[1::2]
    if interpolation == "co-sited":
        return even / 2 + (odd + np.concatenate([odd[:1], odd[:-1]])) / 4
    return (even + odd) / 2


def _more(samples: NDArray[np.float64], interpolation: str) -> NDArray[np.float64]:
    """Twice as many samples along the first axis."""
    before, after = np.concatenate([samples[:1], samples[:-1]]), np.concatenate([samples[1:], samples[-1:]])
    if interpolation == "co-sited":
        pair = samples, (samples + after) / 2
    elif interpolation == "centred":
        pair = (3 * samples + before) / 4, (3 * samples + after) / 4
    else:
        pair = samples, samples
    return np.stack(pair, 1).reshape(-1, *samples.shape[1:])


def batches(
    pictures: list[Picture], side: int, size: int, rng: np.random.Generator, wide_share: float = 0.0
) -> Iterator[Tensor]:
    """Endless batches, float32 [size, 3, side, side], blue green red, 0 ... 255.

    A share of them has crops twice as wide and a quarter as many: coarse levels then see fewer borders.
    """
    wide = [p for p in pictures if min(p.shape[:2]) >= 2 * side]
    while True:
        use_wide = bool(wide) and rng.random() < wide_share
        source, own_side, count = (wide, 2 * side, max(1, size // 4)) if use_wide else (pictures, side, size)
        chosen = [crop(source[int(rng.integers(len(source)))], own_side, rng) for _ in range(count)]
        yield to_tensor(np.stack(chosen))


def to_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """RGB bytes [N, H, W, 3] -> float32 [N, 3, H, W], blue green red."""
    return torch.from_numpy(np.ascontiguousarray(pictures[..., ::-1].transpose(0, 3, 1, 2))).float()


def any_conversion(rng: np.random.Generator) -> Conversion:
    """One of those there are, by CONVERSION_SHARES."""
    return list(CONVERSION_SHARES)[rng.choice(len(CONVERSION_SHARES), p=list(CONVERSION_SHARES.values()))]


def converted(batch: Tensor, conversion: Conversion) -> Tensor:
    """A batch of whole grey levels as the flow gets it where luma and chroma are coded: likewise, of any sign."""
    pixels = batch.byte().permute(0, 2, 3, 1).flip(-1).cpu().numpy()
    planes = lifted(conversion.estimated(pixels), conversion)
    return (torch.from_numpy(planes).permute(0, 3, 1, 2).float() + CENTRE).to(batch.device).contiguous()


class Workshop(IterableDataset[Tensor]):
    """Batches cut by several processes, as bytes, [N, 3, side, side], blue green red.

    Args:
        pictures: What crops are cut from.
        side: As in `batches`.
        size: As in `batches`.
        wide_share: As in `batches`.
        rng: What each process begins its own numbers with.
    """

    def __init__(
        self, pictures: list[Picture], side: int, size: int, wide_share: float, rng: np.random.Generator
    ) -> None:
        self.pictures, self.side, self.size, self.wide_share = pictures, side, size, wide_share
        self.seed = int(rng.integers(2**31))

    def __iter__(self) -> Iterator[Tensor]:
        """The batches of the process this is called in."""
        worker = get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        for batch in batches(self.pictures, self.side, self.size, rng, self.wide_share):
            yield batch.byte()

    def loader(self, workers: int) -> DataLoader[Tensor]:
        """Batches of all processes."""
        return DataLoader(self, batch_size=None, num_workers=workers, prefetch_factor=4)
