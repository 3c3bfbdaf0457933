"""Speed and memory on this machine, Bijou beside other codecs in the same run.

    python -m tests.bench.bench [--folder photographs/] [--out bench.md]

Speed: Kodak-size pictures, warm, from pixels to file and back, with the seconds of each room as the codec reports
them. Memory: a 24-megapixel picture in a process of its own, so that the peak is the codec's.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from model_export.metrics import psnr
from model_export.peers import Pixels, peers
from model_export.provenance import provenance
from model_export.report import bullets, number, table
from model_export.samples import find_samples
from service import codec
from tests.bench import operations
from tests.bench.memory import Peak, measure_peaks
from tests.bench.subjects import LEARNED, OURS, Options, Seconds, Subject, has_compressai, opened, textured

ROOMS = ("image", "flow", "prior", "entropy")
GROUPS = {
    "lossy, near 39 dB on Kodak": {
        "bijou": 60,
        "bijou-effort-1": 60,
        "bijou-effort-2": 60,
        "bijou-large": 60,
        "avif": 78,
        "jxl": 90,
        "webp": 89,
        "jpeg": 89,
    },
    "lossless": {"bijou": 100, "bijou-large": 100, "jxl-lossless": 100, "png": 100},
    "learned codecs without trained weights": {"bijou": 50, "mbt2018-mean": 6},
}
"""Codec and quality; the first of a group is what the others are set against."""

MEBIBYTE = 2**20
Given = TypeVar("Given")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Speed:
    """One direction: wall-clock seconds, and those of each room where the codec tells."""

    total_s: float
    rooms_s: Seconds


@dataclass(frozen=True)
class Row:
    """One codec at one quality: means over pictures of medians over rounds; no rate where weights are not trained."""

    name: str
    quality: float
    threads: int
    bits_per_pixel: float | None
    psnr_db: float | None
    encode: Speed
    decode: Speed


def measure(subject: Subject, pictures: Sequence[Pixels], threads: int, rounds: int) -> Row:
    """Encode and decode every picture `rounds` times, after one round that does not count."""
    rates, reached_db, encodes, decodes = [], [], [], []
    for pixels in pictures:
        encode, stream = _timed(subject.encode, pixels, rounds)
        decode, decoded = _timed(subject.decode, stream, rounds)
        encodes.append(encode)
        decodes.append(decode)
        rates.append(8 * len(stream) / (pixels.shape[0] * pixels.shape[1]))
        reached_db.append(psnr(pixels, decoded))
    rate, mean_db = (statistics.fmean(rates), statistics.fmean(reached_db)) if subject.trained else (None, None)
    return Row(subject.name, subject.quality, threads, rate, mean_db, _mean(encodes), _mean(decodes))


def _timed(work: Callable[[Given], tuple[Result, Seconds]], given: Given, rounds: int) -> tuple[Speed, Result]:
    totals_s, rooms_s = [], []
    result, _ = work(given)
    for _ in range(rounds):
        start_s = time.perf_counter()
        result, rooms = work(given)
        totals_s.append(time.perf_counter() - start_s)
        rooms_s.append(rooms)
    medians = {room: statistics.median(r[room] for r in rooms_s) for room in rooms_s[0]}
    return Speed(statistics.median(totals_s), medians), result


def _mean(speeds: Sequence[Speed]) -> Speed:
    rooms = {room: statistics.fmean(s.rooms_s[room] for s in speeds) for room in speeds[0].rooms_s}
    return Speed(statistics.fmean(s.total_s for s in speeds), rooms)


def speed_table(rows: Sequence[Row]) -> str:
    """Codecs of one group; the ratios set the first row's time against each other's."""
    first = rows[0]
    header = ("codec", "quality", "bpp", "PSNR dB", "encode ms", "decode ms")
    ratios = (f"{first.name} / it, encode", f"{first.name} / it, decode")
    return table(
        (*header, *ratios),
        (
            (
                r.name,
                f"{r.quality:g}",
                number(r.bits_per_pixel, 3),
                number(r.psnr_db, 2),
                number(r.encode.total_s * 1000, 1),
                number(r.decode.total_s * 1000, 1),
                number(first.encode.total_s / r.encode.total_s, 2),
                number(first.decode.total_s / r.decode.total_s, 2),
            )
            for r in rows
        ),
    )


def room_table(rows: Sequence[Row]) -> str:
    """Where the time goes, in milliseconds; `rest` is what no room accounts for."""
    header = ("codec", "quality", "threads", "direction", *(f"{room} ms" for room in ROOMS), "rest ms", "entropy %")
    return table(header, (_rooms(r, d, s) for r in rows for d, s in (("encode", r.encode), ("decode", r.decode))))


def _rooms(row: Row, direction: str, speed: Speed) -> list[str]:
    rest_s = speed.total_s - sum(speed.rooms_s.values())
    share = speed.rooms_s["entropy"] / speed.total_s if "entropy" in speed.rooms_s else None
    spent = [number(_milliseconds(speed.rooms_s.get(room)), 1) for room in ROOMS]
    ends = [number(rest_s * 1000, 1), number(None if share is None else share * 100, 1)]
    return [row.name, f"{row.quality:g}", str(row.threads), direction, *spent, *ends]


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def memory_table(peaks: Iterable[tuple[str, float, Peak, Peak]], pixels: int) -> str:
    """Peaks of encoding and decoding; `more` is what the call needed beyond model and input, per pixel."""
    header = ("codec", "quality", "direction", "resting MiB", "peak MiB", "more, bytes a pixel", "s, cold")
    return table(
        header,
        (
            (
                name,
                f"{quality:g}",
                direction,
                number(peak.resting_bytes / MEBIBYTE, 0),
                number(peak.peak_bytes / MEBIBYTE, 0),
                number((peak.peak_bytes - peak.resting_bytes) / pixels, 1),
                number(peak.seconds, 2),
            )
            for name, quality, encode, decode in peaks
            for direction, peak in (("encode", encode), ("decode", decode))
        ),
    )


def speeds(pictures: Sequence[Pixels], options: Options, rounds: int) -> dict[str, list[Row]]:
    """Measure every group with these threads."""
    ours = {name for name, (model, _) in OURS.items() if options.model is None or not model}
    there = {*ours, *peers(), *(LEARNED if has_compressai() else ())}
    return {
        title: [
            measure(opened(name, quality, options), pictures, options.threads, rounds)
            for name, quality in group.items()
            if name in there
        ]
        for title, group in GROUPS.items()
        if len(there & set(group)) > 1
    }


def report(o: argparse.Namespace, arguments: Sequence[str]) -> str:
    """Run everything that was asked for, and lay it out as Markdown."""
    pictures = [s.pixels() for s in find_samples([o.folder])[: o.pictures]] if o.folder else [textured(512, 768)]
    what = f"{len(pictures)} of the given folder" if o.folder else "one synthetic, 768x512"
    options = Options(o.threads[0], o.device, o.model)
    facts = {**provenance("tests.bench.bench", arguments), "device": o.device, "pictures": what}
    for model in [codec.open_model(o.model)] if o.model else codec.shipped_models():
        encoding, decoding = operations.a_pixel(model.folder)
        counted = f"{encoding:.0f} and {decoding:.0f} thousand multiplications a pixel to encode and to decode"
        facts[model.name] = counted
    parts = ["# Speed and memory", bullets(facts)]
    ours: list[Row] = []
    for threads in o.threads:
        for title, rows in speeds(pictures, replace(options, threads=threads), o.rounds).items():
            known = {(r.quality, r.threads) for r in ours}
            ours += [r for r in rows if r.name == "bijou" and (r.quality, r.threads) not in known]
            parts += [f"## Speed, {title}, threads: {threads}", speed_table(rows)]
    parts += ["## Where the time goes", room_table(ours)]
    if o.memory_size is not None:
        width, height = o.memory_size
        large = textured(height, width)
        peaks = [(n, q, *measure_peaks(n, q, large, options)) for n, q in _memory_subjects()]
        parts += [f"## Memory, {width}x{height}, threads: {options.threads}", memory_table(peaks, width * height)]
    return "\n\n".join(parts) + "\n"


def _memory_subjects() -> list[tuple[str, float]]:
    lossy, lossless, _ = GROUPS.values()
    there = {*OURS, *peers()}
    chosen = [("bijou", lossy["bijou"]), ("bijou", lossless["bijou"]), ("bijou-effort-1", lossy["bijou-effort-1"])]
    chosen += [(name, lossy[name]) for name in ("avif", "jxl")]
    return [(name, quality) for name, quality in chosen if name in there]


def _size(text: str) -> tuple[int, int] | None:
    if text == "none":
        return None
    width, height = text.split("x")
    return int(width), int(height)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: print the report, and write it to --out."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--folder", type=Path, help="pictures to time (default: a synthetic one)")
    add("--pictures", type=int, default=4, help="how many of them")
    add("--out", type=Path, help="Markdown file to write")
    add("--threads", type=int, nargs="+", default=[1, 2])
    add("--rounds", type=int, default=5)
    add("--memory-size", type=_size, default=(6000, 4000), help="WIDTHxHEIGHT of the large picture, or none")
    add("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    add("--model", type=Path, help="folder of one model (default: the shipped one)")
    options = parser.parse_args(argv)
    text = report(options, sys.argv[1:] if argv is None else argv)
    sys.stdout.write(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
