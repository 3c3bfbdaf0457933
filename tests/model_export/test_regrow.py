"""regrow: channels that were left out are there again, and change nothing until something is learned."""

from __future__ import annotations

import pytest
import torch

from model_export.__main__ import main
from model_export.checkpoint import Progress, load_average, save_average
from model_export.config import TINY
from model_export.regrow import regrown
from model_export.silent import cut, hidden_layers
from tests.model_export.conftest import firing, outcome


@pytest.fixture
def smaller():
    """Every third channel of each layer is left out, and as a whole what one level's dequantiser joins."""
    made = firing()
    kept = {own.name: torch.arange(own.biases[0][2].shape[-1]) % 3 > 0 for own in hidden_layers(made)}
    kept["priors.2.dequantiser.join"][:] = False
    return cut(made, kept)


@torch.no_grad()
def measured(model, code):
    own = outcome(model, code)
    return own.bits.item(), own.squared_error.item()


def test_a_regrown_model_computes_what_it_did(smaller):
    whole = regrown(smaller).eval()
    for code in (0.0, 300.0, -1000.0):
        assert measured(whole, code) == pytest.approx(measured(smaller, code), rel=1e-5)


def test_widths_are_what_sizes_say_but_for_what_is_gone_as_a_whole(smaller):
    whole = regrown(smaller, ("fine", "coarse"))
    assert whole.sets[0].trunk.width == TINY.fine.channels
    assert whole.sets[0].dequantiser.join is not None
    assert len(whole.sets[0].dequantiser.join.bias) == TINY.fine.dequantiser_channels
    assert whole.sets[2].trunk.width == TINY.coarse.channels
    assert whole.sets[2].dequantiser.join is None
    assert whole.sets[1].trunk.width == smaller.sets[1].trunk.width < TINY.middle.channels
    assert whole.sets[1].trunk.carry.weight.shape[1] == whole.sets[1].parent > smaller.sets[1].parent


def test_new_channels_learn(smaller):
    whole = regrown(smaller).train()
    outcome(whole, 100.0).bits.sum().backward()
    kernel, was = (model.sets[0].trunk.layers[0].conv.weight for model in (whole, smaller))
    gone = ~smaller.kept["priors.0.trunk.first"]
    assert kernel.shape[1] > was.shape[1]
    assert kernel.grad is not None
    assert kernel.grad[:, gone].abs().sum() > 0
    assert not kernel[smaller.kept["priors.0.trunk.rest.0"]][:, gone].any()


def test_a_whole_model_stays_as_it_is():
    made = firing()
    assert measured(regrown(made), 100.0) == measured(made, 100.0)


def test_the_command_writes_a_checkpoint(smaller, tmp_path):
    source, target = tmp_path / "small.pt", tmp_path / "whole.pt"
    save_average(source, smaller, Progress(step=7))
    assert main(["regrow", str(source), str(target), "--sets", "middle"]) == 0
    whole, progress = load_average(target)
    assert progress.step == 7
    assert whole.sets[1].trunk.width == TINY.middle.channels
    assert measured(whole, 300.0) == pytest.approx(measured(smaller, 300.0), rel=1e-5)
