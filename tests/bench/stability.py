"""`python -m tests.bench.stability FOLDER`: on how many pictures `stable` settles, and what settling costs.

Each stable stream is decoded to a PNG, read again and encoded: the same bytes must come back where the encoder said so.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from service import codec


@dataclass(frozen=True)
class Settled:
    """One picture at one quality: whether it settled, seconds it took, and PSNR less that of the plain encode."""

    quality: float
    stable: bool
    seconds: float
    difference_db: float


def measure(path: Path, qualities: tuple[float, ...]) -> list[Settled]:
    """Settle one picture at several qualities."""
    models = codec.shipped_models(codec.RuntimeOptions(device="cpu", threads=1))
    picture = codec.read_image(path.read_bytes(), codec.Limits())
    results = []
    for quality in qualities:
        target = codec.Target(quality=quality)
        plain = codec.encode(picture, models.default, target)
        begun = time.perf_counter()
        settled = codec.encode(picture, models.default, target, stable=True)
        seconds = time.perf_counter() - begun
        png = codec.write_image(codec.decode(settled.stream, models).picture, "png")
        again = codec.encode(codec.read_image(png, codec.Limits()), models.default, target)
        if settled.stable and again.stream != settled.stream:
            raise SystemExit(f"{path.name} at {quality:g}: said to be stable, but is not")
        results.append(Settled(quality, bool(settled.stable), seconds, settled.psnr_db - plain.psnr_db))
    return results


def main() -> None:
    """Print one row a quality."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--qualities", type=float, nargs="+", default=[5, 25, 50, 75, 90, 99])
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    paths = sorted(options.folder.glob("*.png"))
    rows: list[Settled] = []
    with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        for path, part in zip(paths, pool.map(measure, paths, [tuple(options.qualities)] * len(paths)), strict=True):
            kept = " ".join(f"{r.quality:g}:{'settled' if r.stable else 'not settled'}" for r in part)
            print(f"{path.name} {kept}", file=sys.stderr, flush=True)
            rows += part
    print("| quality | settled | mean dB lost | most dB lost | median s |\n| ---: | ---: | ---: | ---: | ---: |")
    for quality in options.qualities:
        own = [r for r in rows if r.quality == quality]
        lost = [-r.difference_db for r in own]
        took = statistics.median(r.seconds for r in own)
        share = f"{sum(r.stable for r in own)} of {len(own)}"
        print(f"| {quality:g} | {share} | {statistics.mean(lost):.3f} | {max(lost):.3f} | {took:.1f} |")


if __name__ == "__main__":
    main()
