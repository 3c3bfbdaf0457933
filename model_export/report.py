"""An evaluation -> JSON and Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model_export.summarise import Comparison, CurvePoint, GenerationRow, LosslessRow


@dataclass(frozen=True)
class Evaluation:
    """Everything one run found out.

    Attributes:
        provenance: See provenance.py.
        settings: Setting of each codec by name.
        curves: Rate-distortion points, codec by codec, in the order of the qualities.
        comparisons: BD-rates.
        lossless: Lossless sizes.
        generations: After how many generations `descents` gives the PSNR.
        descents: Generation loss.
        anchors: Curves that were not measured here.
    """

    provenance: Mapping[str, str]
    settings: Mapping[str, str]
    curves: Sequence[CurvePoint] = ()
    comparisons: Sequence[Comparison] = ()
    lossless: Sequence[LosslessRow] = ()
    generations: Sequence[int] = ()
    descents: Sequence[GenerationRow] = ()
    anchors: Mapping[str, Sequence[CurvePoint]] | None = None


def write_json(evaluation: Evaluation, path: Path) -> None:
    """Write every figure; an infinite PSNR becomes null."""
    path.write_text(json.dumps(_plain(asdict(evaluation)), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_markdown(evaluation: Evaluation, figures: Sequence[str], path: Path) -> None:
    """Write the tables, followed by links to the figures (file names beside this one)."""
    parts = ["# Evaluation", bullets(evaluation.provenance), "Codecs:", bullets(evaluation.settings)]
    if evaluation.comparisons:
        parts += ["## BD-rate", _BD_NOTE, _comparisons(evaluation.comparisons)]
    if evaluation.lossless:
        parts += ["## Lossless", "Every decoded picture was compared with its original pixel by pixel."]
        parts += [_lossless(evaluation.lossless)]
    if evaluation.descents:
        parts += ["## Generation loss", _GENERATION_NOTE, _descents(evaluation.descents, evaluation.generations)]
    if evaluation.curves:
        parts += ["## Rate and distortion", _CURVE_NOTE, _curves(evaluation.curves)]
    parts += [f"![{Path(name).stem.replace('_', ' ')}]({name})" for name in figures]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


_BD_NOTE = (
    "Rate difference at equal quality over the range that both curves reach; negative: the curve needs less. "
    "MS-SSIM is compared in dB, -10 log10(1 - MS-SSIM)."
)
_GENERATION_NOTE = (
    "Encoded and decoded through 8-bit pixels again and again; PSNR in dB to the original after so many generations. "
    "Size: growth of the files from the first generation to the last. Fixed: pictures whose pixels stopped changing, "
    "and since which generation all of them did. "
    "Quality q ± s: generations take q, q + s and q - s in turn."
)
_CURVE_NOTE = (
    "Real files, headers included; means of per-picture values, RGB PSNR. Every file was decoded and compared with "
    "what the encoder reported. Seconds are medians per picture; a dash: not timed."
)


def bullets(facts: Mapping[str, str]) -> str:
    """A Markdown list of `name: value`."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column to the left, all others to the right."""
    lines = [list(header), ["---"] + ["---:"] * (len(header) - 1), *map(list, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(value: float | None, digits: int, sign: str = "") -> str:
    """A figure for a table cell: a dash for None, `exact` for infinity."""
    if value is None:
        return "-"
    return "exact" if math.isinf(value) else f"{value:{sign}.{digits}f}"


def _curves(points: Sequence[CurvePoint]) -> str:
    header = ("codec", "quality", "pictures", "bpp", "PSNR dB", "MS-SSIM", "encode s", "decode s")
    return table(
        header,
        (
            (
                p.codec,
                f"{p.quality:g}",
                str(p.pictures),
                number(p.bits_per_pixel, 4),
                number(p.psnr_db, 3),
                number(p.ms_ssim, 5),
                number(p.encode_s, 3),
                number(p.decode_s, 3),
            )
            for p in points
        ),
    )


def _comparisons(rows: Sequence[Comparison]) -> str:
    header = ("curve", "anchor", "BD-rate, PSNR %", "from dB", "to dB", "BD-rate, MS-SSIM %")
    return table(
        header,
        (
            (
                r.curve,
                r.anchor,
                number(r.psnr_pct, 2, "+"),
                number(r.low_db, 2),
                number(r.high_db, 2),
                number(r.ms_ssim_pct, 2, "+"),
            )
            for r in rows
        ),
    )


def _lossless(rows: Sequence[LosslessRow]) -> str:
    smallest = min(r.total_bytes for r in rows)
    header = ("codec", "pictures", "bytes", "bpp", "to the smallest %")
    return table(
        header,
        (
            (
                r.codec,
                str(r.pictures),
                str(r.total_bytes),
                number(r.bits_per_pixel, 4),
                number((r.total_bytes / smallest - 1) * 100, 2, "+"),
            )
            for r in sorted(rows, key=lambda r: r.total_bytes)
        ),
    )


def _descents(rows: Sequence[GenerationRow], generations: Sequence[int]) -> str:
    header = ("codec", "quality", "bpp", *(f"gen. {g}" for g in generations), "size %", "fixed", "since")
    return table(
        header,
        (
            (
                r.codec,
                f"{r.quality:g} ± {r.swing:g}" if r.swing else f"{r.quality:g}",
                number(r.bits_per_pixel, 3),
                *(number(p, 2) for p in r.psnr_db),
                number(r.growth_pct, 1, "+"),
                f"{r.fixed_pictures}/{r.pictures}",
                str(r.fixed_since or "-"),
            )
            for r in rows
        ),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
