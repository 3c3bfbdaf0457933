"""Figures of single pictures -> what a report shows: means over pictures, BD-rates, totals."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_export.measure import Descent, Point
from model_export.metrics import NoOverlapError, bd_rate, in_decibel, shared_range
from model_export.peers import Codec


class UnknownAnchorError(ValueError):
    """The anchor file has no such curve, or several that fit the name."""


@dataclass(frozen=True)
class CurvePoint:
    """One codec at one quality: means of per-picture values, times as medians (the first call may be cold)."""

    codec: str
    quality: float
    pictures: int
    bits_per_pixel: float
    psnr_db: float
    ms_ssim: float | None
    encode_s: float | None
    decode_s: float | None


@dataclass(frozen=True)
class Comparison:
    """BD-rate of a curve against an anchor, in per cent; None where the curves share no range."""

    curve: str
    anchor: str
    psnr_pct: float | None
    low_db: float | None
    high_db: float | None
    ms_ssim_pct: float | None


@dataclass(frozen=True)
class LosslessRow:
    """One codec's lossless files, every one compared with its original pixel by pixel."""

    codec: str
    pictures: int
    total_bytes: int
    bits_per_pixel: float


@dataclass(frozen=True)
class GenerationRow:
    """Generation loss of one codec at one quality.

    Attributes:
        swing: How far the quality moved up and down in turn; 0: it was the same for all generations.
        bits_per_pixel: Of the first generation.
        growth_pct: How much larger the last generation's files are, all together.
        psnr_db: Mean over pictures to the original, after each generation asked for.
        fixed_pictures: Pictures whose pixels had stopped changing.
        fixed_since: Generation from which the last of them stood still; None unless all pictures do.
    """

    codec: str
    quality: float
    swing: float
    pictures: int
    bits_per_pixel: float
    growth_pct: float
    psnr_db: tuple[float, ...]
    fixed_pictures: int
    fixed_since: int | None


def curve_point(codec: Codec, quality: float, points: Sequence[Point]) -> CurvePoint:
    """Summarise one codec at one quality."""
    return CurvePoint(
        codec.name,
        quality,
        len(points),
        statistics.fmean(p.bits_per_pixel for p in points),
        statistics.fmean(p.psnr_db for p in points),
        _known(statistics.fmean, [p.ms_ssim for p in points]),
        _known(statistics.median, [p.encode_s for p in points]),
        _known(statistics.median, [p.decode_s for p in points]),
    )


def lossless_row(codec: Codec, points: Sequence[Point]) -> LosslessRow:
    """Summarise one codec's lossless files."""
    rate = statistics.fmean(p.bits_per_pixel for p in points)
    return LosslessRow(codec.name, len(points), sum(p.size_bytes for p in points), rate)


def generation_row(codec: Codec, quality: float, swing: float, descents: Sequence[Descent]) -> GenerationRow:
    """Summarise one codec's generation loss at or around one quality."""
    fixed = [d.fixed_since for d in descents if d.fixed_since is not None]
    grown = sum(d.last_bytes for d in descents) / sum(d.first_bytes for d in descents)
    return GenerationRow(
        codec.name,
        quality,
        swing,
        len(descents),
        statistics.fmean(8 * d.first_bytes / d.pixels for d in descents),
        (grown - 1) * 100,
        tuple(statistics.fmean(values) for values in zip(*(d.psnr_db for d in descents), strict=True)),
        len(fixed),
        max(fixed) if len(fixed) == len(descents) else None,
    )


def compare(name: str, curve: Sequence[CurvePoint], anchor_name: str, anchor: Sequence[CurvePoint]) -> Comparison:
    """BD-rates by PSNR and by MS-SSIM in dB, over the range that both curves reach."""
    by_psnr = _bd(_by_psnr(curve), _by_psnr(anchor))
    by_ms_ssim = _bd(_by_ms_ssim(curve), _by_ms_ssim(anchor))
    if by_psnr is None:
        return Comparison(name, anchor_name, None, None, None, by_ms_ssim[0] if by_ms_ssim else None)
    return Comparison(name, anchor_name, *by_psnr, by_ms_ssim[0] if by_ms_ssim else None)


def read_anchors(path: Path, names: Iterable[str]) -> dict[str, list[CurvePoint]]:
    """Curves of other codecs from a CSV with the columns codec, metric_setting, quality, bpp, psnr_db, ms_ssim.

    Args:
        path: The file.
        names: `codec`, or `codec:metric_setting` where a codec has several settings.

    Raises:
        UnknownAnchorError: A name fits no curve or several.
    """
    curves: dict[tuple[str, str], list[CurvePoint]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["bpp"] and row["psnr_db"]:
                similarity = float(row["ms_ssim"]) if row["ms_ssim"] else None
                rate, reached_db = float(row["bpp"]), float(row["psnr_db"])
                point = CurvePoint(row["codec"], math.nan, 0, rate, reached_db, similarity, None, None)
                curves.setdefault((row["codec"], row["metric_setting"]), []).append(point)
    chosen = {}
    for name in names:
        fitting = [key for key in curves if name in (key[0], ":".join(key))]
        if len(fitting) != 1:
            choices = ", ".join(":".join(key) for key in fitting or curves)
            raise UnknownAnchorError(f"anchor {name!r} fits {len(fitting)} curves; choose one of: {choices}")
        chosen[fitting[0][0]] = curves[fitting[0]]
    return chosen


def _known(mean: Callable[[list[float]], float], values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return mean(known) if known else None


def _by_psnr(curve: Sequence[CurvePoint]) -> list[tuple[float, float]]:
    return _rising([(p.bits_per_pixel, p.psnr_db) for p in curve])


def _by_ms_ssim(curve: Sequence[CurvePoint]) -> list[tuple[float, float]]:
    return _rising([(p.bits_per_pixel, in_decibel(p.ms_ssim)) for p in curve if p.ms_ssim is not None])


def _rising(curve: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Leave out lossless points and those that need more rate for no more quality: BD-rate cannot use them."""
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(curve):
        if math.isfinite(quality) and (not kept or quality > kept[-1][1]):
            kept.append((rate, quality))
    return kept


def _bd(curve: list[tuple[float, float]], anchor: list[tuple[float, float]]) -> tuple[float, float, float] | None:
    if min(len(curve), len(anchor)) < 2:
        return None
    try:
        return (bd_rate(curve, anchor), *shared_range(curve, anchor))
    except NoOverlapError:
        return None
