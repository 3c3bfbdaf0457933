"""What the benchmarks run, all with one shape: Bijou from the shipped model, other codecs through Pillow, and learned
ones through CompressAI where that is installed. CompressAI's have no weights here: they tell how long they take, and
nothing else.
"""

from __future__ import annotations

import importlib
import importlib.util
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_export.config import LARGE
from model_export.peers import Pixels, peers
from service import codec

Seconds = Mapping[str, float]
"""Seconds per room; empty for a codec that does not tell."""

LEARNED = ("mbt2018-mean",)
"""An architecture of CompressAI, by D. Minnen et al. 2018, without its serial context model."""
SPECTRUM_SLOPE = 0.5
"""Amplitude of an octave is its wavelength to this power: rates then come out near Kodak's."""


@dataclass(frozen=True)
class Options:
    """How Bijou is opened; the other codecs take only the threads."""

    threads: int = 1
    device: str = "cpu"
    model: Path | None = None


OURS = {"bijou": ("", 0), "bijou-effort-1": ("", 1), "bijou-effort-2": ("", 2), "bijou-large": (LARGE.name, 0)}
"""Names of the models that are measured, and with which effort; no name: the default one, or the one that is given."""


@dataclass(frozen=True)
class Subject:
    """One codec at one quality; one without trained weights has no rate or PSNR worth telling."""

    name: str
    quality: float
    encode: Callable[[Pixels], tuple[bytes, Seconds]]
    decode: Callable[[bytes], tuple[Pixels, Seconds]]
    trained: bool = True


def opened(name: str, quality: float, options: Options) -> Subject:
    """Open a codec by name.

    Raises:
        KeyError: There is no such codec here.
    """
    if name in OURS:
        return _bijou(name, quality, options)
    if name in LEARNED:
        return _compressai(name, quality, options)
    peer = peers(options.threads)[name]
    return Subject(name, quality, lambda p: (peer.encode(p, quality).stream, {}), lambda s: (peer.decode(s), {}))


def _bijou(name: str, quality: float, options: Options) -> Subject:
    runtime = codec.RuntimeOptions(device=options.device, threads=options.threads)  # type: ignore[arg-type]
    models = (
        codec.ModelSet([codec.open_model(options.model, runtime)])
        if options.model is not None
        else codec.shipped_models(runtime)
    )
    own, effort = OURS[name]
    model = models.by_name(own) if own else models.default

    def encode(pixels: Pixels) -> tuple[bytes, Seconds]:
        picture = codec.Picture(pixels=pixels, alpha=None, grey=False, icc=None, exif=None)
        encoded = codec.encode(picture, model, codec.Target(quality=quality), effort=effort)
        return encoded.stream, encoded.seconds

    def decode(stream: bytes) -> tuple[Pixels, Seconds]:
        decoded = codec.decode(stream, models)
        return decoded.picture.pixels, decoded.seconds

    return Subject(name, quality, encode, decode)


def has_compressai() -> bool:
    """Whether the package is installed; it is not among the project's own."""
    return importlib.util.find_spec("compressai") is not None


def _compressai(name: str, quality: float, options: Options) -> Subject:
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    net = importlib.import_module("compressai.zoo").image_models[name](quality=int(quality), pretrained=False).eval()
    net.update(force=True)

    @torch.no_grad()
    def encode(pixels: Pixels) -> tuple[bytes, Seconds]:
        planes = torch.from_numpy(pixels.transpose(2, 0, 1)[None] / np.float32(255))
        return pickle.dumps(net.compress(planes)), {}

    @torch.no_grad()
    def decode(stream: bytes) -> tuple[Pixels, Seconds]:
        coded = pickle.loads(stream)  # what `encode` made, in this process
        planes = net.decompress(coded["strings"], coded["shape"])["x_hat"]
        return (planes[0].numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8), {}

    return Subject(f"{name} {quality:g}", quality, encode, decode, trained=False)


def textured(height: int, width: int, seed: int = 0) -> Pixels:
    """A picture with detail at every scale, like a photograph's: noise in octaves, chroma weaker than luma."""
    rng = np.random.default_rng(seed)
    luma = _octaves(height, width, 60, rng)
    planes = []
    for _ in range(3):
        plane = 128 + luma + _octaves(height, width, 15, rng)
        planes.append(np.clip(plane, 0, 255).astype(np.uint8))
    return np.stack(planes, -1)


def _octaves(height: int, width: int, amplitude: float, rng: np.random.Generator) -> NDArray[np.float32]:
    total = np.zeros((height, width), np.float32)
    wavelength, longest = 1, min(512, height, width)
    while wavelength <= longest:
        shape = (height // wavelength + 2, width // wavelength + 2)
        noise = rng.standard_normal(shape, np.float32) * amplitude * (wavelength / longest) ** SPECTRUM_SLOPE
        total += np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))
        wavelength *= 2
    return total
