"""marginal: costs elsewhere are the derivative they claim to be."""

from __future__ import annotations

import pytest
import torch

from model_export import dequantiser, prior, quantiser
from model_export.config import TINY
from model_export.data import synthetic_pictures, to_tensor
from model_export.marginal import derivatives, loss_elsewhere
from model_export.model import CodecModel
from tests.model_export.conftest import lively


@pytest.fixture(scope="module")
def model():
    return lively()


@pytest.fixture(scope="module")
def picture():
    return to_tensor(synthetic_pictures(1, 128)[0][None])


@pytest.mark.parametrize("position", [240.0, 400.0, 560.0])
@pytest.mark.parametrize("level", [0, 1, 3])
def test_costs_are_the_derivative(model, picture, position, level, monkeypatch):
    """Along a direction in which many bins add up, for single ones drown in float32; with nearest bins, which stay."""
    for module in (prior, dequantiser, quantiser):  # beyond a limit training's gradient is none of the function
        monkeypatch.setattr(module, "bounded", torch.clamp)
    at, epsilon = torch.tensor([position]), 0.01
    never = [torch.full_like(own, 1e4) for own in derivatives(model, picture, at)]
    found = derivatives(model, picture, at, never)
    taken, direction = [torch.zeros_like(own) for own in found], torch.sign(found[level])
    losses = []
    for side in (epsilon, -epsilon):
        taken[level] = side * direction
        with torch.no_grad():
            losses.append(loss_elsewhere(model, picture, at, taken, never).item())
    expected = found[level].abs().sum().item()
    assert expected > 20
    assert (losses[0] - losses[1]) / (2 * epsilon) == pytest.approx(expected, rel=0.03)


def test_bins_that_nobody_reads_cost_nothing_elsewhere(picture):
    untrained = CodecModel(TINY).eval()
    assert all((own == 0).all() for own in derivatives(untrained, picture, torch.tensor([240.0])))


def test_zeros_are_not_taken_anywhere(model, picture):
    steps = 0
    for level, own in enumerate(derivatives(model, picture, torch.tensor([120.0]))):
        low = picture - 128
        for finer in range(level + 1):
            low, details = model.flow(low, model.flow.rung(finer, False, 1), torch.ones(1), False)
        value = details / model.steps(torch.tensor([120.0]), level, False)[:, 3:]
        assert (own[value.abs() < 0.5] == 0).all()
        steps += int((own != 0).sum())
    assert steps
