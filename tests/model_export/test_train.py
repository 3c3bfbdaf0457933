"""train: a tiny model on synthetic pictures learns, stops, resumes, and leaves a checkpoint a later run can read."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from model_export.config import TINY
from model_export.train import TrainSettings, load_average, save_compact, schedule, train

SETTINGS = TrainSettings(minutes=60, batch=2, side=128, max_steps=6, report_s=1e9)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    out = tmp_path_factory.mktemp("train") / "checkpoint.pt"
    train(TINY, SETTINGS, [], [], out)
    return out


def test_a_run_stops_after_its_steps_and_has_trained(checkpoint):
    model, progress = load_average(checkpoint)
    assert progress.step == 6
    assert model.config == TINY
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert math.isfinite(progress.history[-1]["lossless_bpp"])
    torch.manual_seed(SETTINGS.seed)
    untrained = type(model)(TINY)
    moved = [not torch.equal(a, b) for a, b in zip(model.parameters(), untrained.parameters(), strict=True)]
    assert sum(moved) > len(moved) // 2


def test_a_resumed_run_goes_on_counting(checkpoint, tmp_path):
    copy = tmp_path / "copy.pt"
    copy.write_bytes(checkpoint.read_bytes())
    train(TINY, dataclasses.replace(SETTINGS, max_steps=8, exact=True), [], [], copy)
    _, progress = load_average(copy)
    assert progress.step == 8
    assert len(progress.history) > len(load_average(checkpoint)[1].history)


def test_a_compact_checkpoint_is_small_loads_and_starts_a_new_run(checkpoint, tmp_path):
    compact = tmp_path / "compact.pt"
    save_compact(checkpoint, compact)
    assert compact.stat().st_size < checkpoint.stat().st_size / 3
    model, _ = load_average(compact)
    full, _ = load_average(checkpoint)
    for a, b in zip(model.parameters(), full.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    out = tmp_path / "next.pt"
    train(TINY, dataclasses.replace(SETTINGS, max_steps=1), [], [], out, start=compact)
    assert load_average(out)[1].step == 1


def test_the_learning_rate_warms_up_and_cools_down():
    assert schedule(0.0, 0) < schedule(0.0, 50) < schedule(0.0, 100)
    assert schedule(0.1, 1000) > schedule(0.5, 1000) > schedule(1.0, 1000) > 0
