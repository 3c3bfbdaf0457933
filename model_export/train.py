"""Pictures -> a trained checkpoint: `python -m model_export train`.

A run is a time budget; it can be stopped and resumed from its one checkpoint file at any moment. Several processes can
share it (`parallel`).
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model_export.checkpoint import Progress, begin_from, made, resume, save_checkpoint
from model_export.config import ModelConfig
from model_export.data import Picture, Workshop, batches, evenly, read_pictures, synthetic_pictures
from model_export.loss import loss_of, lossless_batch
from model_export.metrics import Curve, bd_rate
from model_export.model import CodecModel
from model_export.optimiser import Muon
from model_export.parallel import Team
from model_export.recorded import Recorded
from model_export.replay import Replay
from model_export.train_settings import FINEST, PARTS, TrainSettings
from model_export.validate import jpeg2000_curve, validate, watched_of
from model_export.wake import wake

log = logging.getLogger(__name__)

WAKE_PICTURES = 64
"""How many pictures tell which channels never fire."""


def schedule(done: float, step: int) -> float:
    """Factor of the learning rates: a short warm-up, then a cosine down to 1 %."""
    return min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


@contextmanager
def prepared(settings: TrainSettings) -> Iterator[None]:
    """Fix seeds, threads and number formats; denormal numbers, off while it lasts, are for the whole process."""
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    torch.set_flush_denormal(True)
    if settings.device == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def train(
    config: ModelConfig,
    settings: TrainSettings,
    data: list[Path],
    valid: list[Path],
    out: Path,
    start: Path | None = None,
) -> CodecModel:
    """Train until the time budget is spent and return the averaged model.

    Args:
        config: Sizes of a new model.
        settings: How to train.
        data: Pictures to train on; without any a small synthetic set is used.
        valid: Pictures to watch progress on; without any a few of the training set's own.
        out: Checkpoint file; an existing one is continued.
        start: Checkpoint whose weights a new run starts from.
    """
    team = Team()
    with prepared(settings), team.joined():
        return _train(config, settings, data, valid, out, start, team)


def _train(
    config: ModelConfig,
    settings: TrainSettings,
    data: list[Path],
    valid: list[Path],
    out: Path,
    start: Path | None,
    team: Team,
) -> CodecModel:
    pictures = read_pictures(data, settings.side) if data else synthetic_pictures(16, 2 * settings.side)
    watched = watched_of(read_pictures(valid) if valid else pictures)
    anchor = jpeg2000_curve(watched)
    model = made(config, out if out.exists() else start).to(settings.device)
    average = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(own in f".{name}." for own in PARTS[settings.part]))
    optimiser = Muon(model.named_parameters(), settings.rate, settings.rate / 10, narrow=settings.mixed)
    if out.exists():
        progress = resume(out, model, average, optimiser)
    else:
        progress = begin_from(start, model, average) if start else Progress()
        if settings.wake:
            wake(model, evenly(pictures, WAKE_PICTURES))
            average.load_state_dict(model.state_dict())
    torch.manual_seed(settings.seed + progress.step + team.rank)
    rng = np.random.default_rng([settings.seed + progress.step, team.rank])
    model.set_exact(settings.exact)
    average.set_exact(settings.exact)
    model.mixed = settings.mixed
    log.info("%d pictures, %d parameters", len(pictures), sum(p.numel() for p in model.parameters()))
    losses: list[float] = []
    finest = FINEST.get(settings.part, 0)
    learn = learning(model, settings, crops(pictures, settings, rng), finest, rng)
    trained = [p for p in model.parameters() if p.requires_grad]
    budget_s, begun, reported = settings.minutes * 60, time.monotonic() - progress.spent_s, 0.0
    while True:
        done = progress.spent_s / budget_s
        finished = done >= 1 or (settings.max_steps and progress.step >= settings.max_steps)
        if finished or progress.spent_s - reported > settings.report_s:
            reported = progress.spent_s
            if team.rank == 0:
                report(validate(average, watched, finest), anchor, progress, losses, budget_s)
                save_checkpoint(out, model, average, optimiser, progress)
            losses.clear()
        if finished:
            return average
        loss = learn()
        progress.spent_s = team.averaged(trained, time.monotonic() - begun)
        norm = nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        if torch.isfinite(norm):
            optimiser.step(schedule(done, progress.step))
            losses.append(loss.item())
        progress.step += 1
        follow(average, model, progress.step)


def crops(pictures: list[Picture], settings: TrainSettings, rng: np.random.Generator) -> Iterator[Tensor]:
    """Endless batches: bytes from several processes, or float32 made here."""
    if settings.workers:
        workshop = Workshop(pictures, settings.side, settings.batch, settings.wide_share, rng)
        return iter(workshop.loader(settings.workers))
    return batches(pictures, settings.side, settings.batch, rng, settings.wide_share)


def learning(
    model: CodecModel, settings: TrainSettings, source: Iterator[Tensor], finest: int, rng: np.random.Generator
) -> Callable[[], Tensor]:
    """What takes the next batch, leaves the gradients of its loss in the model and gives the loss."""

    def backward(loss: Tensor) -> Tensor:
        model.zero_grad()
        loss.backward()
        return loss

    if settings.part == "offsets":
        replay = Replay(copy.deepcopy(model), source, range(1, model.config.levels), rng)
        return lambda: backward(replay.loss(model))

    def loss_here(pictures: Tensor, lossless: bool) -> Tensor:
        return loss_of(model, pictures, lossless, finest)

    recorded: Recorded | None = None
    if settings.device == "cuda" and settings.part != "all":
        recorded = Recorded([p for p in model.parameters() if p.requires_grad], loss_here)

    def learn() -> Tensor:
        batch, lossless = next(source), rng.random() < settings.lossless_share
        if lossless:
            batch = lossless_batch(batch, rng)
        batch = batch.to(settings.device).float()
        return recorded(batch, lossless) if recorded else backward(loss_here(batch, lossless))

    return learn


@torch.no_grad()
def follow(average: CodecModel, model: CodecModel, step: int) -> None:
    """Move the averaged weights towards the trained ones."""
    decay = min(0.999, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


def report(
    validation: tuple[Curve, float], anchor: Curve, progress: Progress, losses: list[float], budget_s: float
) -> None:
    """Keep what validation of the averaged model gave, and log one line."""
    curve, lossless = validation
    rate = bd_rate(curve, anchor)
    line = {"step": progress.step, "minutes": progress.spent_s / 60, "bd_rate_jpeg2000": rate, "lossless_bpp": lossless}
    line["loss"] = float(np.mean(losses)) if losses else math.nan
    progress.history.append({key: float(value) for key, value in line.items()})
    points = " ".join(f"{bpp:.3f}@{db:.2f}" for bpp, db in curve)
    left = max(0.0, budget_s - progress.spent_s) / 60
    log.info(
        "step %d, %.0f min to go: loss %.4f, BD-rate against JPEG 2000 %+.2f %%, lossless %.3f bpp, %s",
        progress.step, left, line["loss"], rate, lossless, points,
    )  # fmt: skip
