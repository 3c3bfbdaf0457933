"""Pictures and folders of their streams, decoded beside them -> bits per pixel and PSNR, as a table.

python -m examples.compare samples/ q20 q60      with q20-decoded/ and q60-decoded/ beside q20/ and q60/
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table


def pixels_of(path: Path) -> np.ndarray:
    """A picture's pixels, [H, W, 3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def measured(original: Path, stream: Path, decoded: Path) -> tuple[float, float]:
    """Bits per pixel, container included, and PSNR in dB over all channels; inf if the pixels are equal."""
    a, b = pixels_of(original), pixels_of(decoded)
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    bits_per_pixel = stream.stat().st_size * 8 / (a.shape[0] * a.shape[1])
    return bits_per_pixel, math.inf if error == 0 else 10 * math.log10(255**2 / error)


def main(arguments: list[str]) -> None:
    """Print a row for each picture and folder."""
    originals, *folders = map(Path, arguments)
    table = Table("streams", "picture", "bpp", "PSNR, dB")
    for folder in folders:
        for original in sorted(originals.glob("*.png")):
            decoded = folder.with_name(f"{folder.name}-decoded") / original.name
            bits_per_pixel, psnr_db = measured(original, folder / f"{original.stem}.bij", decoded)
            table.add_row(folder.name, original.stem, f"{bits_per_pixel:.3f}", f"{psnr_db:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
