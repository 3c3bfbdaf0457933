"""One short training run, for all that reads checkpoints, and models that were never trained."""

from __future__ import annotations

import pytest
import torch

from model_export.config import TINY
from model_export.data import synthetic_pictures, to_tensor
from model_export.integers import ByteLayer
from model_export.model import CodecModel, Outcome
from model_export.train import train
from model_export.train_settings import TrainSettings

SETTINGS = TrainSettings(minutes=60, batch=2, side=128, max_steps=6, report_s=1e9)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    out = tmp_path_factory.mktemp("train") / "checkpoint.pt"
    train(TINY, SETTINGS, [], [], out)
    return out


@torch.no_grad()
def lively() -> CodecModel:
    """A tiny model no weight of whose priors is what it begins as."""
    torch.manual_seed(0)
    made = CodecModel(TINY).eval()
    for parameter in made.priors.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return made


@torch.no_grad()
def firing() -> CodecModel:
    """The same, so that all channels of its byte layers fire."""
    made = lively()
    for layer in made.modules():
        if isinstance(layer, ByteLayer):
            layer.bias.fill_(2.0)
    return made


def outcome(model: CodecModel, code: float) -> Outcome:
    """What a model measures of a picture at a position; below 0: without loss."""
    picture = to_tensor(synthetic_pictures(1, 128, seed=5)[0][None])
    result: Outcome = model(picture, torch.tensor([code]), code < 0)
    return result
