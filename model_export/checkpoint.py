"""Checkpoints: what a run needs to go on, what the next one starts from, and mixtures of both.

A full checkpoint has the last weights, their average over the run, the optimiser and the progress; a compact one the
average alone, in float16. Weights that ended one run and those it started from, or two runs from one start, can be
averaged: the mean is often better than either.

Source: M. Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time", 2022.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model_export.config import ModelConfig
from model_export.model import CodecModel
from model_export.optimiser import Muon
from model_export.silent import cut
from service.codec.artifact import PRIORS

log = logging.getLogger(__name__)


BESIDES = ("config", "kept", "progress")
"""What a checkpoint has besides weights: sizes, channels that are left of them (older ones have all), and progress."""


@dataclass
class Progress:
    """Where a run stands; travels in the checkpoint."""

    step: int = 0
    spent_s: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def save_checkpoint(path: Path, model: CodecModel, average: CodecModel, optimiser: Muon, progress: Progress) -> None:
    """Write everything a run needs to continue, atomically."""
    state = {
        "config": model.config.as_dict(),
        "kept": model.kept,
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "progress": vars(progress),
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def read_state(path: Path) -> dict[str, Any]:
    """A checkpoint as it was written, but older ones with a set of priors for each that there is now.

    The coarsest levels once shared theirs with the one above them.
    """
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    coarse, coarsest = (f"priors.{PRIORS.index(name)}." for name in ("coarse", "coarsest"))
    if not any(name.startswith(coarsest) for name in state["average"]):
        for part in ("average", "model", "kept"):
            own = state.get(part) or {}
            own |= {coarsest + name[len(coarse) :]: value for name, value in own.items() if name.startswith(coarse)}
        state["config"]["coarsest"] = state["config"]["coarse"]
    return state


def sized(state: dict[str, Any]) -> CodecModel:
    """A new model as large as that of a checkpoint, channels left out as there."""
    model = CodecModel(ModelConfig.from_dict(state["config"]))
    return cut(model, state["kept"]) if state.get("kept") else model


def made(config: ModelConfig, origin: Path | None) -> CodecModel:
    """A new model for weights of a checkpoint, as large as that if channels are left out there.

    Raises:
        MixError: Channels are left out, and the model asked for has another name.
    """
    state = read_state(origin) if origin else {}
    if not state.get("kept"):
        return CodecModel(config)
    if state["config"]["name"] != config.name:
        raise MixError(f"{origin} has channels left out; another size starts from a checkpoint that has them all")
    return sized(state)


def load_average(path: Path) -> tuple[CodecModel, Progress]:
    """The averaged model of a checkpoint, full or compact."""
    state = read_state(path)
    model = sized(state)
    model.load_state_dict({name: value.float() for name, value in state["average"].items()})
    return model.eval(), Progress(**state["progress"])


def save_average(path: Path, model: CodecModel, progress: Progress) -> None:
    """Write weights alone, in float32."""
    state = {"config": model.config.as_dict(), "kept": model.kept, "progress": vars(progress)}
    _save_weights(path, state, model.state_dict())


def _save_weights(path: Path, state: dict[str, Any], average: dict[str, Tensor]) -> None:
    """Write weights alone, with what a checkpoint has besides."""
    torch.save({name: state[name] for name in BESIDES if name in state} | {"average": average}, path)


def save_compact(source: Path, target: Path) -> None:
    """Keep only the averaged weights, in float16: a few MB that a later run can start from."""
    state = read_state(source)
    average = {name: value.half() for name, value in state["average"].items()}
    _save_weights(target, state, average)


class MixError(ValueError):
    """Two checkpoints have nothing between them."""


def mix(start: Path, run: Path, target: Path, share: float, last: bool = False) -> None:
    """Write weights between those a run started from and those it ended with, in float32.

    Args:
        start: Checkpoint the run started from, or another run of the same size.
        run: Checkpoint of the run; its progress is kept.
        target: What is written.
        share: 0: the start, 1: the run.
        last: Take the run's last weights instead of their average; it has to be a full checkpoint then.

    Raises:
        MixError: The two are of different sizes, or there are no last weights.
    """
    begin, end = (read_state(path) for path in (start, run))
    left = [state.get("kept") or {} for state in (begin, end)]
    alike = left[0].keys() == left[1].keys() and all(torch.equal(own, left[1][name]) for name, own in left[0].items())
    if begin["config"] != end["config"] or not alike:
        raise MixError(f"{start} and {run} are models of different sizes")
    if last and "model" not in end:
        raise MixError(f"{run} is compact: it has averaged weights only")
    weights = end["model" if last else "average"]
    mixed = {
        name: torch.lerp(begin["average"][name].float(), weight.float(), share) for name, weight in weights.items()
    }
    _save_weights(target, end, mixed)


def resume(path: Path, model: CodecModel, average: CodecModel, optimiser: Muon) -> Progress:
    """Continue a full checkpoint."""
    state = read_state(path)
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    return Progress(**state["progress"])


def begin_from(path: Path, model: CodecModel, average: CodecModel) -> Progress:
    """Start a new schedule from the averaged weights of a checkpoint, full or compact, of this or a smaller size."""
    state = read_state(path)
    weights, given = model.state_dict(), state["average"]
    smaller = ModelConfig.from_dict(state["config"])
    anew = [
        name
        for name, weight in weights.items()
        if not adopt(weight, given.get(name), parts_read(name, smaller), parts_read(name, model.config))
    ]
    for name, weight in weights.items():
        if ".trunk.rest." in name and name.endswith(".conv.weight") and name not in given:
            nn.init.dirac_(weight)  # a layer more that changes nothing at first
    if anew:
        log.info("%d of %d tensors begin anew or larger, as %s", len(anew), len(weights), anew[0])
    model.load_state_dict(weights)
    average.load_state_dict(weights)
    return Progress()


def parts_read(name: str, config: ModelConfig) -> tuple[int, ...]:
    """Channels of each of several nets' outputs that a kernel reads side by side; () where there is one net."""
    matched = re.match(r"priors\.(\d)\.(trunk\.carry|dequantiser\.(join\.conv|refiner\.first\.convs\.0))\.weight", name)
    if matched is None:
        return ()
    own = config.priors[int(matched[1])]
    if matched[2] == "trunk.carry":
        return (config.parent(int(matched[1])) // 2,) * 2
    return (own.channels, own.dequantiser_channels if "join" in name else own.channels)


def adopt(weight: Tensor, given: Tensor | None, were: tuple[int, ...] = (), are: tuple[int, ...] = ()) -> bool:
    """Copy a tensor into one that is as large or larger; True if it is the same in all.

    Where a kernel has grown, what was there does not read the new inputs, and new outputs keep the weights they begin
    with: a wider net computes the same at first. A tensor that does not fit is left as it is.

    Args:
        weight: Is copied into.
        given: What is copied.
        were: Parts of the given kernel's inputs, where it has several.
        are: Of the weight's.
    """
    if given is not None and given.shape == weight.shape:
        weight.copy_(given)
        return True
    if given is None or given.ndim != weight.ndim or any(g > w for g, w in zip(given.shape, weight.shape, strict=True)):
        return False
    if weight.ndim == 4:
        rows = weight[: given.shape[0]]
        rows.zero_()
        parts = zip(rows.split(are or rows.shape[1], 1), given.split(were or given.shape[1], 1), strict=True)
        for into, part in parts:
            into[:, : part.shape[1]] = part.float()
    else:
        weight[tuple(slice(n) for n in given.shape)] = given.float()
    return False
