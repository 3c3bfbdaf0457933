"""`python -m model_export`: train, prune, regrow, mix, compact, validate, export, verify, golden, evaluate."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import fields, replace
from pathlib import Path

import torch

from model_export import evaluate
from model_export.checkpoint import MixError, load_average, mix, save_average, save_compact
from model_export.config import LARGE, TINY, ModelConfig
from model_export.data import NoPicturesError, Picture, evenly, read_pictures
from model_export.export import Provenance, export, golden_picture
from model_export.prune import SIDE, pruned
from model_export.regrow import regrown
from model_export.train import train
from model_export.train_settings import PARTS, TrainSettings
from model_export.validate import compare
from model_export.verify import verify_bijection
from service.codec.artifact import PRIORS, SHIPPED, RuntimeOptions, shipped_models
from service.codec.errors import BijouError
from service.codec.golden import golden_check, write_golden

CHECKPOINT = Path("work/checkpoint.pt")
SIZES = {config.name: config for config in (ModelConfig(), LARGE, TINY)}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m model_export", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    t = commands.add_parser("train", help="train until the time budget is spent; resumes from --out")
    t.add_argument("--data", type=Path, nargs="*", default=[], help="folders and tar files; none: synthetic pictures")
    t.add_argument("--valid", type=Path, nargs="*", default=[], help="pictures to watch progress on, never trained on")
    t.add_argument("--out", type=Path, default=CHECKPOINT, help="checkpoint file")
    t.add_argument("--start", type=Path, help="checkpoint whose weights a new run starts from")
    t.add_argument("--size", choices=SIZES, default="bijou-1")
    t.add_argument("--minutes", type=float, default=120.0)
    t.add_argument("--batch", type=int, default=8)
    t.add_argument("--side", type=int, default=128, help="side of a crop in pixels")
    t.add_argument("--wide-share", type=float, default=0.0, help="share of steps with crops twice as wide")
    t.add_argument("--rate", type=float, default=0.02, help="Muon's step at the start")
    t.add_argument("--lossless-share", type=float, default=0.2, help="share of batches that are lossless")
    t.add_argument("--part", choices=PARTS, default="all", help="train only this part of the model")
    t.add_argument("--exact", action="store_true", help="fine-tune with integer weights and activations")
    t.add_argument("--mixed", action="store_true", help="convolutions of the prior in bfloat16, where that is faster")
    t.add_argument("--wake", action="store_true", help="begin channels anew that never fire")
    t.add_argument("--seed", type=int, default=0)
    t.add_argument("--threads", type=int, default=1)
    t.add_argument("--workers", type=int, default=0, help="processes that cut crops, beside a GPU")
    t.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    t.add_argument("--report-s", type=float, default=300.0)
    t.add_argument("--max-steps", type=int, default=0, help="stop after this many steps; 0: no limit")
    e = commands.add_parser("export", help="checkpoint -> verified artifact, made the default")
    e.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    e.add_argument("--models", type=Path, default=SHIPPED)
    e.add_argument("--data", type=Path, nargs="*", default=[], help="pictures the coder's tables are fitted on")
    e.add_argument("--pictures", type=int, default=160, help="how many of them")
    e.add_argument("--trained", default="", help="when and on what hardware, for the manifest")
    e.add_argument("--threads", type=int, default=1)
    for name, text in (
        ("verify", "check bijection and golden files of exported models"),
        ("golden", "write golden files anew"),
    ):
        v = commands.add_parser(name, help=text)
        v.add_argument("--models", type=Path, default=SHIPPED)
    c = commands.add_parser("compact", help="checkpoint -> averaged weights in float16")
    c.add_argument("source", type=Path)
    c.add_argument("target", type=Path)
    p = commands.add_parser("prune", help="leave out channels that tell least for the time they take; then train on")
    p.add_argument("source", type=Path)
    p.add_argument("target", type=Path)
    p.add_argument("--data", type=Path, nargs="+", required=True, help="folders and tar files")
    p.add_argument("--name", help="of the smaller model; none: as before")
    p.add_argument("--share", type=float, default=0.5, help="of the time with all channels, of what can be left out")
    p.add_argument("--sets", nargs="+", default=PRIORS, choices=PRIORS, help="of priors that they are left out of")
    p.add_argument("--rounds", type=int, default=6)
    p.add_argument("--batches", type=int, default=50, help="of crops, in each round")
    p.add_argument("--mixed", action="store_true", help="as in train")
    p.add_argument("--threads", type=int, default=1)
    r = commands.add_parser("regrow", help="put channels that were left out back, to be trained anew")
    r.add_argument("source", type=Path)
    r.add_argument("target", type=Path)
    r.add_argument("--sets", nargs="+", default=PRIORS, choices=PRIORS, help="of priors that get theirs back")
    m = commands.add_parser("mix", help="weights between those a run started from and those it ended with")
    m.add_argument("start", type=Path)
    m.add_argument("run", type=Path)
    m.add_argument("target", type=Path)
    m.add_argument("--share", type=float, default=0.75, help="of the run")
    m.add_argument("--last", action="store_true", help="the run's last weights instead of their average")
    w = commands.add_parser("validate", help="estimated rates of checkpoints, beside JPEG 2000")
    w.add_argument("checkpoints", type=Path, nargs="+")
    w.add_argument("--valid", type=Path, nargs="+", required=True, help="pictures: folders and tar files")
    w.add_argument("--threads", type=int, default=1)
    commands.add_parser("evaluate", help="rate-distortion, lossless and generation figures", add_help=False)
    return top


def run_train(options: argparse.Namespace) -> None:
    """Train."""
    settings = TrainSettings(**{field.name: getattr(options, field.name) for field in fields(TrainSettings)})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    train(SIZES[options.size], settings, options.data, options.valid, options.out, options.start)


def run_prune(options: argparse.Namespace) -> None:
    """Leave channels out of the averaged model of a checkpoint."""
    torch.set_num_threads(options.threads)
    model, progress = load_average(options.source)
    model.mixed = options.mixed
    pictures = read_pictures(options.data, SIDE)
    model.config = replace(model.config, name=options.name or model.config.name)
    model = pruned(model.train(), pictures, options.share, options.rounds, options.batches, sets=options.sets)
    save_average(options.target, model, progress)


def run_regrow(options: argparse.Namespace) -> None:
    """Put channels that were left out back into the averaged model of a checkpoint."""
    torch.manual_seed(0)
    model, progress = load_average(options.source)
    save_average(options.target, regrown(model, options.sets), progress)


def run_export(options: argparse.Namespace) -> None:
    """Export the averaged model of a checkpoint."""
    model, progress = load_average(options.checkpoint)
    pictures: list[Picture] = read_pictures(options.data) if options.data else []
    provenance = Provenance(
        trained=options.trained,
        data=[path.name for path in options.data],
        steps=progress.step,
        minutes=round(progress.spent_s / 60, 1),
    )
    artifact = export(model, options.models, evenly(pictures, options.pictures), provenance, options.threads)
    print(artifact.id)


def run_check(options: argparse.Namespace) -> None:
    """Verify, or rewrite the golden files of, every exported model."""
    for model in shipped_models(RuntimeOptions(device="cpu", threads=1), options.models):
        if options.command == "golden":
            write_golden(model, model.folder / "golden", golden_picture())
        verify_bijection(model)
        golden_check(model)
        print(f"{model.id} {model.name}: bijection and golden files hold")


def run(options: argparse.Namespace) -> None:
    """Run one command."""
    if options.command == "train":
        run_train(options)
    elif options.command == "export":
        run_export(options)
    elif options.command == "compact":
        save_compact(options.source, options.target)
    elif options.command == "mix":
        mix(options.start, options.run, options.target, options.share, options.last)
    elif options.command == "prune":
        run_prune(options)
    elif options.command == "regrow":
        run_regrow(options)
    elif options.command == "validate":
        torch.set_num_threads(options.threads)
        compare(options.checkpoints, options.valid)
    else:
        run_check(options)


def main(arguments: list[str]) -> int:
    """Run one command; what the user can mend is one line and exit status 2."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        if arguments[:1] == ["evaluate"]:
            return evaluate.main(arguments[1:])
        run(parser().parse_args(arguments))
    except (BijouError, MixError, NoPicturesError, OSError) as error:
        print(f"model_export: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
