"""The samples and the shipped model -> the figures of docs/how-it-works.md.

    python -m examples.make_figures [folder]      docs/figures by default; needs the extra `export` (matplotlib)

Everything shown was made by the codec as it is; JPEG and WebP are Pillow's, at the quality that comes closest in bytes.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from service import codec

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "figures"
SAMPLES = ROOT / "service" / "web" / "samples"
INK, QUIET, BIJOU, JPEG, WEBP = "#1b1a22", "#5a5866", "#4a3aa7", "#c2410c", "#00785a"
GENERATIONS = 8
QUALITY = 60.0
Pixels = np.ndarray


def sample(name: str) -> Pixels:
    """A sample's pixels, [H, W, 3]."""
    with Image.open(SAMPLES / f"{name}.png") as image:
        return np.asarray(image.convert("RGB"))


def encoded(pixels: Pixels, models: codec.ModelSet, quality: float = QUALITY) -> codec.Encoded:
    """One encode with the default model."""
    return codec.encode(codec.Picture(pixels), models.default, codec.Target(quality=quality))


def psnr_db(a: Pixels, b: Pixels) -> float:
    """PSNR over all channels."""
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2)))


def draw_levels(models: codec.ModelSet) -> Figure:
    """A stream's scales, with the bytes each one needs."""
    stream = encoded(sample("hills"), models).stream
    info = codec.inspect(stream)
    figure = Figure((10, 2.1), layout="constrained")
    for axes, scale in zip(figure.subplots(1, 5), (16, 8, 4, 2, 1), strict=True):
        axes.imshow(codec.decode(stream, models, scale=scale).picture.pixels)
        first = min(scale, max(s.scale or 1 for s in info.sections))  # the first part may serve several scales
        needed = max(s.offset + s.length for s in info.sections if s.scale and s.scale >= first)
        axes.set_title(f"1/{scale}: {needed / len(stream):.0%} of {len(stream):,} bytes", fontsize=9)
        axes.axis("off")
    return figure


def draw_quantiser(models: codec.ModelSet) -> Figure:
    """Why quantising twice is quantising once: points stay in their bins."""
    del models  # a drawing of the rule, not of a picture
    figure = Figure((7, 1.9), layout="constrained")
    axes = figure.subplots()
    points = (-1.86, -0.9, 0.0, 0.93, 1.9)
    for number, point in enumerate(points, start=-2):
        axes.axvspan(number - 0.5, number + 0.5, color=BIJOU, alpha=0.10 if number % 2 else 0.22, lw=0)
        axes.plot(point, 0, "o", color=BIJOU)
        axes.text(number, 0.72, f"bin {number}", ha="center", color=QUIET, fontsize=9)
    for value, point in ((1.33, points[3]), (0.62, points[3]), (-1.7, points[0])):
        axes.annotate("", (point, -0.05), (value, -0.7), arrowprops={"arrowstyle": "->", "color": JPEG})
        axes.plot(value, -0.7, "|", color=JPEG, ms=9, mew=2)
    axes.set(xlim=(-2.5, 2.5), ylim=(-1, 1), yticks=[], xlabel="latent value, in steps Δ")
    return figure


def draw_generations(models: codec.ModelSet) -> Figure:
    """What is left after each generation, at rest and moved by a pixel in between."""
    figure = Figure((8, 3), layout="constrained")
    for axes, step, title in zip(
        figure.subplots(1, 2, sharey=True), (0, 1), ("at rest", "moved by a pixel"), strict=True
    ):
        for name, colour, mark, values in _descents(sample("hills")[:, :320], models, step):
            axes.plot(range(1, GENERATIONS + 1), values, mark, color=colour, label=name, ms=4)
        axes.set_title(f"decoded and encoded again, {title}", fontsize=9)
        axes.set(xlabel="generation")
        axes.grid(color="#d5d3de", lw=0.5)
        if step == 0:
            axes.set_ylabel("PSNR, dB")
            axes.legend(frameon=False, fontsize=9)
    return figure


def _descents(pixels: Pixels, models: codec.ModelSet, step: int) -> list[tuple[str, str, str, list[float]]]:
    def bijou(given: Pixels) -> Pixels:
        return codec.decode(encoded(given, models).stream, models).picture.pixels

    budget = len(encoded(pixels, models).stream)
    methods: list[tuple[str, str, str, Callable[[Pixels], Pixels]]] = [("Bijou", BIJOU, "o-", bijou)]
    for name, colour, mark in (("JPEG", JPEG, "s--"), ("WEBP", WEBP, "^:")):
        quality = _quality_for(pixels, name, budget)
        methods.append((name, colour, mark, partial(_generation, name=name, quality=quality)))
    descents = []
    for name, colour, mark, generation in methods:
        values, current, reference = [], pixels, pixels
        for _ in range(GENERATIONS):
            current = generation(current)
            values.append(psnr_db(current, reference))
            current, reference = (np.roll(p, (step, step), (0, 1)) for p in (current, reference))
        descents.append((name.replace("WEBP", "WebP"), colour, mark, values))
    return descents


def draw_crops(models: codec.ModelSet) -> Figure:
    """A detail at about equal bytes."""
    figure = Figure((9, 5.2), layout="constrained")
    grid = figure.subplots(2, 4)
    for row, (name, quality, (top, left)) in enumerate((("hills", 65.0, (120, 200)), ("petals", 50.0, (100, 200)))):
        pixels = sample(name)
        result = encoded(pixels, models, quality)
        budget = len(result.stream)
        shown = [("original", pixels, 0), ("Bijou", codec.decode(result.stream, models).picture.pixels, budget)]
        for other in ("JPEG", "WEBP"):
            data = _saved(pixels, other, _quality_for(pixels, other, budget))
            shown.append((other.replace("WEBP", "WebP"), _opened(data), len(data)))
        for axes, (title, picture, size) in zip(grid[row], shown, strict=True):
            _crop(
                axes, picture[top : top + 110, left : left + 110], title, size, psnr_db(picture, pixels) if size else 0
            )
    return figure


def _crop(axes: Axes, pixels: Pixels, title: str, size: int, db: float) -> None:
    axes.imshow(pixels, interpolation="nearest")
    axes.set_title(f"{title}\n{size:,} bytes, {db:.2f} dB" if size else title, fontsize=9)
    axes.axis("off")


def _saved(pixels: Pixels, name: str, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, name, quality=quality)
    return file.getvalue()


def _generation(pixels: Pixels, name: str, quality: int) -> Pixels:
    return _opened(_saved(pixels, name, quality))


def _opened(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def _quality_for(pixels: Pixels, name: str, budget: int) -> int:
    """The highest quality whose file is no longer than the budget; the lowest if there is none."""
    return max((q for q in range(101) if len(_saved(pixels, name, q)) <= budget), default=0)


FIGURES: dict[str, Callable[[codec.ModelSet], Figure]] = {
    "how-levels": draw_levels,
    "how-quantiser": draw_quantiser,
    "how-generations": draw_generations,
    "how-crops": draw_crops,
}


def main(arguments: list[str]) -> None:
    """Draw every figure."""
    folder = Path(arguments[0]) if arguments else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    models = codec.shipped_models(codec.RuntimeOptions(device="cpu"))
    mpl.rcParams.update({"text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": QUIET, "font.size": 10})
    for name, draw in FIGURES.items():
        # No date inside, so that the same figure is the same file.
        draw(models).savefig(folder / f"{name}.png", dpi=110, facecolor="white", metadata={"Software": None})


if __name__ == "__main__":
    main(sys.argv[1:])
