"""Nothing -> the sample pictures of the web page and the documentation, the same on every machine.

    python -m examples.make_samples [folder]      service/web/samples by default

Three kinds a codec meets: something like a photograph, a drawing with text, and strong smooth colours.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).resolve().parents[1] / "service" / "web" / "samples"
WIDTH, HEIGHT = 480, 320
Planes = np.ndarray


def fractal(seed: int, octaves: int, persistence: float, height: int = HEIGHT, width: int = WIDTH) -> Planes:
    """Noise with detail at every size, 0 ... 1, [H, W]."""
    rng, total, weight = np.random.default_rng(seed), np.zeros((height, width)), 1.0
    for octave in range(octaves):
        side = 3 * 2**octave
        coarse = rng.integers(0, 256, (side, side), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        total += weight * np.asarray(smooth, np.float64) / 255
        weight *= persistence
    scaled: Planes = (total - total.min()) / (total.max() - total.min())
    return scaled


def hills() -> Image.Image:
    """Ridges in the haze under a sky with clouds, with grass in front."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    sky = np.stack([120 + 0.35 * rows, 160 + 0.25 * rows, 215 + 0.05 * rows], -1)
    clouds = np.clip(fractal(3, 7, 0.55) * 2.2 - 1.0, 0, 1)[..., None] * (1 - rows / HEIGHT)[..., None]
    picture = sky * (1 - clouds) + 248 * clouds
    for i, colour in enumerate([(150, 170, 190), (96, 128, 130), (62, 98, 72), (44, 74, 34)]):
        line = fractal(20 + i, 7, 0.45, 8)[4] * (90 - 12 * i) + 120 + 42 * i
        texture = 0.72 + 0.56 * fractal(40 + i, 8, 0.8)[..., None] * (0.3 + 0.25 * i)
        inside = rows >= line[columns[0]]
        picture = np.where(inside[..., None], np.array(colour) * texture, picture)
    grain = np.random.default_rng(5).integers(-3, 4, picture.shape)
    return Image.fromarray(np.clip(picture + grain, 0, 255).astype(np.uint8))


def chart() -> Image.Image:
    """A plot with thin lines, flat areas and text."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "#fcfcfd")
    draw = ImageDraw.Draw(image)
    font, small = ImageFont.load_default(20), ImageFont.load_default(12)
    draw.text((24, 14), "Rain and sun, by month", "#1b1a22", font)
    for i in range(6):
        y = 60 + 40 * i
        draw.line((48, y, 460, y), "#d5d3de")
        draw.text((18, y - 8), f"{(5 - i) * 20}", "#5a5866", small)
    heights = np.random.default_rng(9).integers(30, 190, 12).tolist()
    names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    points = []
    for i, (name, value) in enumerate(zip(names, heights, strict=True)):
        x = 56 + 34 * i
        draw.rectangle((x, 260 - value, x + 18, 260), "#4a3aa7" if i % 2 else "#c2410c")
        draw.text((x - 1, 268), name, "#1b1a22", small)
        points.append((x + 9, 70 + (i * 37) % 120))
    draw.line(points, "#00785a", 2)
    draw.text((24, 292), "The quick brown fox jumps over the lazy dog. 0123456789", "#1b1a22", small)
    return image


def petals() -> Image.Image:
    """Saturated petals that fade smoothly into the dark, with fine veins."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    y, x = (rows - HEIGHT / 2) / 150, (columns - WIDTH / 2) / 150
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    petal = np.clip(1.15 * np.abs(np.cos(3.5 * angle)) ** 0.5 - radius, 0, 1)
    veins = 0.85 + 0.15 * np.cos(70 * angle) * np.exp(-radius)
    heart = np.exp(-((radius / 0.22) ** 4))
    red = 235 * petal**0.35 * veins + 240 * heart
    green = 30 * petal + 185 * heart * (0.8 + 0.2 * fractal(8, 8, 0.9))
    blue = 150 * petal**0.7 * (0.6 + 0.4 * np.sin(4 * radius)) + 46 * (1 - petal)
    planes = np.stack([red, green, blue], -1) + 14 * fractal(6, 6, 0.5)[..., None]
    return Image.fromarray(np.clip(planes, 0, 255).astype(np.uint8))


SAMPLES: dict[str, Callable[[], Image.Image]] = {"hills": hills, "chart": chart, "petals": petals}


def main(arguments: list[str]) -> None:
    """Write the samples."""
    folder = Path(arguments[0]) if arguments else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in SAMPLES.items():
        make().save(folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
