"""Pictures x codecs x qualities -> an evaluation: curves, BD-rates, lossless sizes, generation loss.

Everything is measured on real files: written by the codec's own `encode`, read by its own `decode`, compared with
what the encoder reported. Figures already in the cache are not measured again, so an interrupted run continues.

    python -m model_export evaluate photographs/ --out evaluation/ --cache evaluation/cache --anchors anchors.csv
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from model_export.cache import Cache
from model_export.config import LARGE
from model_export.data import evenly
from model_export.measure import GENERATIONS, measure_descent, measure_point
from model_export.peers import Codec, peers
from model_export.plots import draw
from model_export.provenance import provenance
from model_export.report import Evaluation, write_json, write_markdown
from model_export.samples import Sample, find_samples
from model_export.summarise import (
    Comparison,
    CurvePoint,
    GenerationRow,
    LosslessRow,
    compare,
    curve_point,
    generation_row,
    lossless_row,
    read_anchors,
)

log = logging.getLogger(__name__)

PARTS = ("curves", "lossless", "generations")
OURS = "bijou"
"""How names of its own codecs begin."""
DEFAULT_QUALITIES = (5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 100.0)
DEFAULT_GENERATION_QUALITIES = (20.0, 30.0, 50.0)
DEFAULT_ANCHORS = (
    "bpg444-x265",
    "vtm",
    "av1",
    "bmshj2018-hyperprior:mse/cuda/8bit",
    "mbt2018-mean:mse/cuda/8bit",
    "cheng2020-anchor:mse/cuda/8bit",
    "elic2022 (paper):mse/as-published",
    "qarv (one model)",
)
"""Curves of the anchor file that Bijou is compared with."""

Result = TypeVar("Result")


def evaluate(
    samples: Sequence[Sample],
    codecs: Sequence[Codec],
    cache: Cache,
    *,
    parts: Sequence[str] = PARTS,
    anchors: Mapping[str, Sequence[CurvePoint]] | None = None,
    generations: tuple[int, ...] = GENERATIONS,
    generation_pictures: int = 4,
    generation_swings: Sequence[float] = (0.0,),
    jobs: int = 1,
    timed: bool = True,
    facts: Mapping[str, str] | None = None,
) -> Evaluation:
    """Measure codecs on pictures.

    Args:
        samples: The pictures; generation loss takes `generation_pictures` of them, evenly spread.
        codecs: What to measure; each takes part in what it has qualities for.
        cache: Figures known already, and where new ones go.
        parts: Which of PARTS to do.
        anchors: Curves measured elsewhere, by name, for BD-rates and figures.
        generations: After how many generations to take the PSNR.
        generation_pictures: How many pictures the generation loss takes.
        generation_swings: How far the quality changes between generations; 0: not at all.
        jobs: Pictures measured at a time; more than one makes times meaningless, so none are kept then.
        timed: Keep times.
        facts: Provenance to carry along.

    Returns:
        Curves in the order of codecs and qualities; BD-rates of Bijou against everything, of others against anchors.

    Raises:
        BrokenPromiseError: A file decoded to something else than its encoder reported.
    """
    timed = timed and jobs == 1

    def curve(codec: Codec, quality: float) -> CurvePoint:
        points = _each(samples, lambda s: measure_point(codec, quality, s, cache, timed), jobs)
        return curve_point(codec, quality, points)

    def lossless(codec: Codec, quality: float) -> LosslessRow:
        return lossless_row(codec, _each(samples, lambda s: measure_point(codec, quality, s, cache, timed), jobs))

    def descent(swing: float, codec: Codec, quality: float) -> GenerationRow:
        chosen = evenly(samples, generation_pictures)
        found = _each(chosen, lambda s: measure_descent(codec, quality, s, cache, generations, swing), jobs)
        return generation_row(codec, quality, swing, found)

    exact = [(c, [c.lossless_quality]) for c in codecs if c.lossless_quality is not None]
    curves = _rows("curves", parts, [(c, c.qualities) for c in codecs], curve)
    descending = [(c, c.generation_qualities) for c in codecs]
    return Evaluation(
        provenance=facts or {},
        settings={c.name: f"{c.setting} ({c.note})" if c.note else c.setting for c in codecs},
        curves=curves,
        comparisons=_comparisons(curves, anchors or {}),
        lossless=_rows("lossless", parts, exact, lossless),
        generations=generations,
        descents=[
            row
            for swing in generation_swings
            for row in _rows("generations", parts, descending, partial(descent, swing))
        ],
        anchors=anchors,
    )


def _rows(
    part: str,
    parts: Sequence[str],
    work: Iterable[tuple[Codec, Iterable[float]]],
    measure: Callable[[Codec, float], Result],
) -> list[Result]:
    rows = []
    for codec, qualities in work if part in parts else ():
        for quality in qualities:
            log.info("%s: %s at quality %g", part, codec.name, quality)
            rows.append(measure(codec, quality))
    return rows


def _each(samples: Sequence[Sample], measure: Callable[[Sample], Result], jobs: int) -> list[Result]:
    if jobs == 1:
        return [measure(s) for s in samples]
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(measure, samples))


def _comparisons(curves: Sequence[CurvePoint], anchors: Mapping[str, Sequence[CurvePoint]]) -> list[Comparison]:
    measured = {name: [p for p in curves if p.codec == name] for name in dict.fromkeys(p.codec for p in curves)}
    rows = []
    for name, curve in measured.items():
        rows += [compare(name, curve, anchor, points) for anchor, points in anchors.items()]
        others = [other for other in measured if other != name] if name.startswith(OURS) else []
        rows += [compare(name, curve, other, measured[other]) for other in others]
    return rows


def main(argv: Sequence[str]) -> int:
    """Command line: measure, then write evaluation.json, evaluation.md and figures into the folder --out."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    codecs = _chosen_codecs(options)
    result = evaluate(
        find_samples(options.places)[: options.limit],
        codecs,
        Cache(options.cache),
        parts=options.parts,
        anchors=read_anchors(options.anchors, options.anchor or DEFAULT_ANCHORS) if options.anchors else None,
        generations=tuple(sorted(options.generations)),
        generation_pictures=options.generation_pictures,
        generation_swings=options.generation_swings,
        jobs=options.jobs,
        timed=options.times,
        facts=provenance("model_export evaluate", argv),
    )
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(result, options.out / "evaluation.json")
    write_markdown(result, draw(result, options.out), options.out / "evaluation.md")
    log.info("written: %s", options.out / "evaluation.md")
    return 0


def _chosen_codecs(options: argparse.Namespace) -> list[Codec]:
    """The codecs asked for, in that order; a model is opened only if Bijou is among them."""
    table = peers(options.threads)
    if options.codecs is None or any(name.startswith(OURS) for name in options.codecs):
        table = {**_bijou(options), **table}
    unknown = set(options.codecs or ()) - set(table)
    if unknown:
        raise SystemExit(f"no codec {', '.join(sorted(unknown))}; there are {', '.join(table)}")
    return [table[name] for name in options.codecs or table]


def _bijou(options: argparse.Namespace) -> dict[str, Codec]:
    from model_export.bijou_codec import bijou_codecs, effort_codec  # peers can be measured without a model
    from service import codec

    runtime = codec.RuntimeOptions(device=options.device, threads=options.threads)
    models = (
        codec.ModelSet([codec.open_model(options.model, runtime)]) if options.model else codec.shipped_models(runtime)
    )
    table = bijou_codecs(models.default, options.qualities, options.generation_qualities)
    if not options.stable_curve:
        table["bijou-stable"] = replace(table["bijou-stable"], qualities=())
    named = {"bijou": models.default}
    for model in models:
        if model.name == LARGE.name and model is not models.default:
            large = bijou_codecs(model, options.qualities, options.generation_qualities)["bijou"]
            table["bijou-large"] = replace(large, name="bijou-large", generation_qualities=())
            named["bijou-large"] = model
    each = [effort_codec(*model, options.qualities, effort) for effort in options.efforts for model in named.items()]
    return table | {codec.name: codec for codec in each}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model_export evaluate", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("places", nargs="+", type=Path, help="folders or files of pictures")
    add("--out", type=Path, required=True, help="folder for evaluation.json, evaluation.md and the figures")
    add("--cache", type=Path, help="folder of figures already measured; new ones are added at once")
    add("--model", type=Path, help="folder of one model (default: the shipped one)")
    add("--efforts", nargs="+", type=int, default=[], help="also curves of these: bijou-effort-1 and so on")
    add("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    add("--threads", type=int, default=1, help="threads of every codec that can use several")
    add("--jobs", type=int, default=1, help="pictures at a time; more than one: no times")
    add("--codecs", nargs="+", help="default: Bijou and all peers")
    add("--parts", nargs="+", choices=PARTS, default=PARTS)
    add("--qualities", nargs="+", type=float, default=DEFAULT_QUALITIES, help="of Bijou's curve; 100: lossless")
    add("--generation-qualities", nargs="+", type=float, default=DEFAULT_GENERATION_QUALITIES, help="of Bijou")
    add("--generations", nargs="+", type=int, default=GENERATIONS, help="after how many to take the PSNR")
    add("--generation-pictures", type=int, default=4)
    add("--generation-swings", nargs="+", type=float, default=[0.0], help="0: constant quality; 5: up and down by 5")
    add("--stable-curve", action="store_true", help="measure the curve of stable encoding as well")
    add("--anchors", type=Path, help="CSV of curves measured elsewhere on the same pictures")
    add("--anchor", nargs="+", help="curves to take from it: codec, or codec:metric_setting")
    add("--limit", type=int, help="take only the first pictures")
    add("--no-times", dest="times", action="store_false", help="keep no times (a busy machine)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
