"""Pictures -> a trained checkpoint: `python -m model_export train`.

Each batch draws a quality per sample, from the whole range, and now and then the whole batch is lossless. The loss
is R + (6 / ln 2) / step^2 * D, weighted so that every quality counts by its relative, not its absolute, rate.
A run is a time budget; it can be stopped and resumed from its one checkpoint file at any moment.
"""

from __future__ import annotations

import copy
import io
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from model_export.config import ModelConfig
from model_export.data import Picture, batches, read_pictures, synthetic_pictures, to_tensor
from model_export.metrics import Curve, bd_rate, psnr
from model_export.model import CodecModel
from model_export.optimiser import Muon
from model_export.quantiser import FIRST_POSITION, LAST_POSITION, LOSSLESS_POSITION, RATE_DISTORTION, log2_delta
from service.codec.artifact import PRIORS

log = logging.getLogger(__name__)

VALIDATION_CODES = (0.0, 120.0, 240.0, 360.0, 480.0, 600.0)
VALIDATION_SIDE = 256
PARTS = {"all": "", "prior": ".priors.", "dequantiser": ".dequantiser."} | {
    name: f".priors.{index}." for index, name in enumerate(PRIORS)
}
"""Parts of a model that can be trained alone, and what the names of their parameters have in common."""
FINEST = {name: index for index, name in enumerate(PRIORS)}
"""Finest level that is coded while a part is trained; validation then says nothing about finer ones either."""
ANCHOR_RATES = (100, 50, 30, 18, 11, 7, 4.5)
"""Compression factors at which the validation anchor, JPEG 2000, is measured."""


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Attributes:
        minutes: Time budget of the whole schedule.
        batch: Crops in a step.
        side: Side of a crop in pixels, a multiple of 2**(levels + 1).
        wide_share: Share of steps whose crops are twice as wide and a quarter as many.
        rate: Muon's step at the start.
        lossless_share: Share of batches that are lossless.
        part: What is trained: `all`; the `prior` without flow and steps; of it the `coarse`, the `middle` or the `fine`
            part, or the `dequantiser`.
        exact: Fine-tune with integer weights and activations.
        mixed: Run the prior's convolutions in bfloat16; not with `exact`.
        seed: Of crops, qualities and noise.
        threads: CPU threads.
        device: `cpu` or `cuda`.
        report_s: Seconds between reports and checkpoints.
        max_steps: Stop after this many steps (tests); 0: no limit.
    """

    minutes: float = 60.0
    batch: int = 8
    side: int = 128
    wide_share: float = 0.0
    rate: float = 0.02
    lossless_share: float = 0.2
    part: str = "all"
    exact: bool = False
    mixed: bool = False
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    report_s: float = 180.0
    max_steps: int = 0


@dataclass
class Progress:
    """Where a run stands; travels in the checkpoint."""

    step: int = 0
    spent_s: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def quality_weight(log2_step: Tensor) -> Tensor:
    """Weight of a sample by its step: one over the rate photographs need there, and a fifth of a bit."""
    x = log2_step - 2.0
    return 1.0 / (0.2 + torch.exp2(1.61 - 0.685 * x - 0.067 * x * x))


LOSSLESS_WEIGHT = 0.2
FORETELLING_WEIGHT = 0.5
"""Of the dequantiser's own loss. In rate and distortion alone, the noise of high qualities, where there is little to
foretell, drowns what it could learn at low ones."""


def loss_of(model: CodecModel, pictures: Tensor, lossless: bool, finest: int = 0) -> Tensor:
    """Loss of a batch, per pixel."""
    n, pixels = len(pictures), pictures[0, 0].numel()
    if lossless:
        code = torch.full((n,), float(LOSSLESS_POSITION), device=pictures.device)
        return LOSSLESS_WEIGHT * model(pictures, code, True, finest).bits.mean() / pixels
    # One quality from each of n equal parts of the range: batches differ less from one another.
    spread = (torch.arange(n, device=pictures.device) + torch.rand(n, device=pictures.device)) / n
    code = FIRST_POSITION + spread * (LAST_POSITION - FIRST_POSITION)
    outcome, log2_step = model(pictures, code, finest=finest), log2_delta(code)
    distortion = RATE_DISTORTION * torch.exp2(-2 * log2_step) * outcome.squared_error
    cost = quality_weight(log2_step) * (outcome.bits + distortion) / pixels
    return (cost + FORETELLING_WEIGHT * outcome.unforetold).mean()


def schedule(done: float, step: int) -> float:
    """Factor of the learning rates: a short warm-up, then a cosine down to 1 %."""
    return min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def jpeg2000_curve(pictures: list[Picture]) -> Curve:
    """Mean bpp and PSNR of JPEG 2000 at ANCHOR_RATES: the anchor validation is compared with."""
    points = []
    for factor in ANCHOR_RATES:
        rows = []
        for picture in pictures:
            buffer = io.BytesIO()
            Image.fromarray(picture).save(
                buffer, "JPEG2000", quality_mode="rates", quality_layers=[factor], irreversible=True, mct=1
            )
            decoded = np.asarray(Image.open(buffer).convert("RGB"))
            rows.append((buffer.tell() * 8 / picture[..., 0].size, psnr(picture, decoded)))
        points.append(tuple(np.mean(rows, 0)))
    return points


@torch.no_grad()
def validate(model: CodecModel, pictures: list[Picture], finest: int = 0) -> tuple[Curve, float]:
    """Estimated bpp and PSNR at VALIDATION_CODES, and estimated lossless bpp, means over the pictures.

    Finer levels than `finest` cost nothing and stay exact.
    """
    model.eval()
    device = next(model.parameters()).device
    stacked = to_tensor(np.stack(pictures)).to(device)
    pixels, curve = stacked[0, 0].numel(), []
    for code in VALIDATION_CODES:
        bits, noise = 0.0, 0.0
        for part in stacked.split(4):
            outcome = model(part, torch.full((len(part),), code, device=device), finest=finest)
            bits += float(outcome.bits.sum()) / pixels
            squared = (outcome.picture.round().clamp(0, 255) - part).pow(2).flatten(1).mean(1)
            noise += float((10 * torch.log10(255**2 / squared)).sum())
        curve.append((bits / len(stacked), noise / len(stacked)))
    lossless = 0.0
    for part in stacked.split(4):
        code_none = torch.full((len(part),), float(LOSSLESS_POSITION), device=device)
        lossless += float(model(part, code_none, True, finest).bits.sum()) / pixels
    return curve, lossless / len(stacked)


def centre(picture: Picture, side: int) -> Picture:
    """The middle of a picture."""
    top, left = ((n - side) // 2 for n in picture.shape[:2])
    return picture[top : top + side, left : left + side]


def save_checkpoint(path: Path, model: CodecModel, average: CodecModel, optimiser: Muon, progress: Progress) -> None:
    """Write everything a run needs to continue, atomically."""
    state = {
        "config": model.config.as_dict(),
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "progress": vars(progress),
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_average(path: Path) -> tuple[CodecModel, Progress]:
    """The averaged model of a checkpoint, full or compact."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    model = CodecModel(ModelConfig.from_dict(state["config"]))
    model.load_state_dict({name: value.float() for name, value in state["average"].items()})
    return model.eval(), Progress(**state["progress"])


def save_compact(source: Path, target: Path) -> None:
    """Keep only the averaged weights, in float16: a few MB that a later run can start from."""
    state = torch.load(source, map_location="cpu", weights_only=True)
    average = {name: value.half() for name, value in state["average"].items()}
    torch.save({"config": state["config"], "average": average, "progress": state["progress"]}, target)


def resume(path: Path, model: CodecModel, average: CodecModel, optimiser: Muon) -> Progress:
    """Continue a full checkpoint."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    return Progress(**state["progress"])


def begin_from(path: Path, model: CodecModel, average: CodecModel) -> Progress:
    """Start a new schedule from the averaged weights of a checkpoint, full or compact, of this or a smaller size."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    weights, given = model.state_dict(), state["average"]
    anew = [name for name, weight in weights.items() if not adopt(weight, given.get(name))]
    if anew:
        log.info("%d of %d tensors begin anew or larger, as %s", len(anew), len(weights), anew[0])
    model.load_state_dict(weights)
    average.load_state_dict(weights)
    return Progress()


def adopt(weight: Tensor, given: Tensor | None) -> bool:
    """Copy a tensor into one that is as large or larger; True if it is the same in all.

    Where a kernel has grown, what was there does not read the new inputs, and new outputs keep the weights they begin
    with: a wider net computes the same at first. A tensor that does not fit is left as it is.
    """
    if given is None or given.ndim != weight.ndim or any(g > w for g, w in zip(given.shape, weight.shape, strict=True)):
        return False
    if weight.ndim == 4:
        weight[: given.shape[0], given.shape[1] :] = 0
    weight[tuple(slice(n) for n in given.shape)] = given.float()
    return given.shape == weight.shape


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
    with prepared(settings):
        return _train(config, settings, data, valid, out, start)


def _train(
    config: ModelConfig, settings: TrainSettings, data: list[Path], valid: list[Path], out: Path, start: Path | None
) -> CodecModel:
    pictures = read_pictures(data, settings.side) if data else synthetic_pictures(16, 2 * settings.side)
    watched = [p for p in (read_pictures(valid) if valid else pictures) if min(p.shape[:2]) >= VALIDATION_SIDE][:16]
    watched = [centre(p, VALIDATION_SIDE) for p in watched]
    anchor = jpeg2000_curve(watched)
    model = CodecModel(config).to(settings.device)
    average = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(PARTS[settings.part] in f".{name}.")
    optimiser = Muon(model.parameters(), settings.rate, settings.rate / 10)
    if out.exists():
        progress = resume(out, model, average, optimiser)
    else:
        progress = begin_from(start, model, average) if start else Progress()
    rng = np.random.default_rng(settings.seed + progress.step)
    model.set_exact(settings.exact)
    average.set_exact(settings.exact)
    model.mixed = settings.mixed
    log.info("%d pictures, %d parameters", len(pictures), sum(p.numel() for p in model.parameters()))
    losses: list[float] = []
    finest = FINEST.get(settings.part, 0)
    budget_s, begun, reported = settings.minutes * 60, time.monotonic() - progress.spent_s, 0.0
    for batch in batches(pictures, settings.side, settings.batch, rng, settings.wide_share):
        progress.spent_s = time.monotonic() - begun
        done = progress.spent_s / budget_s
        finished = done >= 1 or (settings.max_steps and progress.step >= settings.max_steps)
        if finished or progress.spent_s - reported > settings.report_s:
            reported = progress.spent_s
            report(validate(average, watched, finest), anchor, progress, losses, budget_s)
            save_checkpoint(out, model, average, optimiser, progress)
            losses.clear()
        if finished:
            return average
        loss = loss_of(model, batch.to(settings.device), rng.random() < settings.lossless_share, finest)
        model.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        if torch.isfinite(norm):
            optimiser.step(schedule(done, progress.step))
            losses.append(loss.item())
        progress.step += 1
        follow(average, model, progress.step)
    raise AssertionError("batches are endless")


@torch.no_grad()
def follow(average: CodecModel, model: CodecModel, step: int) -> None:
    """Move the averaged weights towards the trained ones."""
    decay = min(0.999, (1 + step) / (10 + step))
    for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)


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
