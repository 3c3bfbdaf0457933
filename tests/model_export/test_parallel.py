"""parallel: processes of one run see other crops and stay the same model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from model_export.checkpoint import load_average
from model_export.parallel import Team

ROOT = Path(__file__).parents[2]
AVERAGING = """
import torch
from torch import nn
from model_export.parallel import Team

team = Team()
with team.joined():
    weights = [nn.Parameter(torch.zeros(2, 3)) for _ in range(3)]
    weights[0].grad = torch.full((2, 3), float(team.rank))
    if team.rank:
        weights[1].grad = torch.ones(2, 3)
    assert team.averaged(weights, 10.0 * team.rank) == 5.0
    assert torch.equal(weights[0].grad, torch.full((2, 3), 0.5))
    assert torch.equal(weights[1].grad, torch.full((2, 3), 0.5))
    assert weights[2].grad is None
"""


def torchrun(*command: str) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launcher, *command], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


def test_gradients_are_averaged_over_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script = tmp_path / "averaging.py"
    script.write_text(AVERAGING)
    torchrun(str(script))


def test_two_processes_train_one_model(tmp_path):
    out = tmp_path / "c.pt"
    options = f"--size tiny --batch 1 --side 128 --part prior --wake --max-steps 3 --out {out}".split()
    torchrun("-m", "--", "model_export", "train", *options)
    model, progress = load_average(out)
    assert progress.step == 3
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_alone_nothing_is_averaged(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    weight, unused = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    team = Team()
    with team.joined():
        assert team.averaged([weight, unused], 3.0) == pytest.approx(3.0)
    assert torch.equal(weight.grad, torch.ones(2))
    assert unused.grad is None
