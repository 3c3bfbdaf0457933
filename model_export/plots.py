"""An evaluation -> figures (PNG files drawn by matplotlib without a screen)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from model_export.metrics import in_decibel
from model_export.report import Evaluation
from model_export.summarise import CurvePoint, GenerationRow

COLOURS = {
    "bijou": "#c1121f",
    "bijou-stable": "#f28482",
    "bijou-large": "#6a040f",
    "avif": "#1d70b8",
    "jxl": "#2a9d5c",
    "webp": "#8e5bb5",
    "jpeg": "#8a6d3b",
    "jpeg2000": "#d98e04",
}
ANCHOR_COLOURS = ("#222222", "#8c8c8c", "#5b7c99", "#a3b18a", "#c9a227", "#b5838d", "#6d597a", "#4a6c4f")
ANCHOR_DASHES = ("--", ":", "-.")
DOTS_PER_INCH = 130
LEAST_DB = 0.5
"""Losses of generations are never drawn larger than on a scale of this."""


def draw(evaluation: Evaluation, folder: Path) -> list[str]:
    """Draw what the evaluation has figures for.

    Returns:
        Names of the files written, within `folder`.
    """
    names = []
    if evaluation.curves:
        names += [_curves(evaluation, "psnr", lambda p: p.psnr_db, "PSNR in dB (RGB)", folder)]
        if any(p.ms_ssim is not None and p.ms_ssim < 1 for p in evaluation.curves):
            names += [_curves(evaluation, "ms_ssim", _similarity_db, "MS-SSIM in dB", folder)]
    if evaluation.descents:
        names += [_descents(evaluation.descents, evaluation.generations, folder)]
    return names


def _curves(evaluation: Evaluation, what: str, value: Callable[[CurvePoint], float], label: str, folder: Path) -> str:
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    for index, (name, points) in enumerate((evaluation.anchors or {}).items()):
        dash = ANCHOR_DASHES[index % len(ANCHOR_DASHES)]
        colour = ANCHOR_COLOURS[index % len(ANCHOR_COLOURS)]
        _line(axes, points, value, label=name, color=colour, linestyle=dash, marker="", linewidth=1)
    for name in dict.fromkeys(p.codec for p in evaluation.curves):
        own = [p for p in evaluation.curves if p.codec == name]
        width = 2.2 if name in ("bijou", "bijou-stable") else 1.3
        _line(axes, own, value, label=name, color=COLOURS.get(name), linestyle="-", marker="o", linewidth=width)
    axes.set(xscale="log", xlabel="bits per pixel, headers included", ylabel=label)
    _finish(figure, axes)
    return _save(figure, folder, f"rate_{what}.png")


def _line(
    axes: Axes, points: Sequence[CurvePoint], value: Callable[[CurvePoint], float], *, label: str,
    color: str | None, linestyle: str, marker: str, linewidth: float,
) -> None:  # fmt: skip
    known = sorted((p.bits_per_pixel, value(p)) for p in points if math.isfinite(value(p)))
    rates, values = [p[0] for p in known], [p[1] for p in known]
    axes.plot(
        rates, values, label=label, color=color, linestyle=linestyle, marker=marker, markersize=3, linewidth=linewidth
    )


def _descents(rows: Sequence[GenerationRow], generations: Sequence[int], folder: Path) -> str:
    """A panel for each quality of a codec, a row of panels for each swing."""
    swings = list(dict.fromkeys(r.swing for r in rows))
    by_codec = {(r.swing, r.codec): [s for s in rows if (s.swing, s.codec) == (r.swing, r.codec)] for r in rows}
    panels = max(map(len, by_codec.values()))
    figure = Figure(figsize=(4.6 * panels, 4.4 * len(swings)), layout="constrained")
    grid = figure.subplots(len(swings), panels, squeeze=False)
    for (swing, name), own in by_codec.items():
        for axes, row in zip(grid[swings.index(swing)], own, strict=False):
            loss_db = [p - row.psnr_db[0] for p in row.psnr_db]
            moving = f" ± {swing:g}" if swing else ""
            label = f"{name} {row.quality:g}{moving}: {row.bits_per_pixel:.2f} bpp, {row.psnr_db[0]:.1f} dB"
            width = 2.2 if name in ("bijou", "bijou-stable") else 1.3
            dash = "--" if name == "bijou-stable" else "-"
            axes.plot(generations, loss_db, dash, marker="o", markersize=3, label=label, linewidth=width,
                      color=COLOURS.get(name))  # fmt: skip
    for axes in grid.flat:
        axes.set(xscale="log", xlabel="generation")
        axes.set_xticks(generations, [str(g) for g in generations], minor=False)
        axes.minorticks_off()
        axes.set_ylim(bottom=min(axes.get_ylim()[0], -LEAST_DB), top=max(axes.get_ylim()[1], LEAST_DB / 10))
        _finish(figure, axes)
    for axes in grid[:, 0]:
        axes.set_ylabel("PSNR against the first generation in dB")
    return _save(figure, folder, "generation_loss.png")


def _similarity_db(point: CurvePoint) -> float:
    return math.inf if point.ms_ssim is None else in_decibel(point.ms_ssim)


def _finish(figure: Figure, axes: Axes) -> None:
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize=7)
    FigureCanvasAgg(figure)


def _save(figure: Figure, folder: Path, name: str) -> str:
    figure.savefig(folder / name, dpi=DOTS_PER_INCH)
    return name
