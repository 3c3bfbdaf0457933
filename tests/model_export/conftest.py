"""One short training run, for all that reads checkpoints."""

from __future__ import annotations

import pytest

from model_export.config import TINY
from model_export.train import TrainSettings, train

SETTINGS = TrainSettings(minutes=60, batch=2, side=128, max_steps=6, report_s=1e9)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    out = tmp_path_factory.mktemp("train") / "checkpoint.pt"
    train(TINY, SETTINGS, [], [], out)
    return out
