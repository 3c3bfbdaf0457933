"""silent: channels that never fire are found and left out, and what is left computes the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model_export import silent
from model_export.config import TINY
from model_export.data import synthetic_pictures, to_tensor
from model_export.silent import compacted, cut, fired, hidden_layers
from tests.model_export.conftest import firing


@pytest.fixture
def model(monkeypatch):
    """All channels fire, but for some: of three layers, and all that a join gives."""
    monkeypatch.setattr(silent, "BLOCK", 2)
    made = firing()
    with torch.no_grad():
        made.sets[0].trunk.layers[0].bias[[1, 4, 5]] = -1e3
        refiner, join = made.sets[2].dequantiser.refiner, made.sets[1].dequantiser.join
        assert refiner is not None
        assert join is not None
        refiner.layers[0].bias[:3] = -1e3
        join.bias[:] = -1e3
    made.set_exact(True)
    return made


@pytest.fixture
def pictures():
    return [own[:70, :90] for own in synthetic_pictures(7, 96)]


def outcomes(model, pictures, code):
    picture = to_tensor(synthetic_pictures(1, 128, seed=5)[0][None])
    with torch.no_grad():
        return model(picture, torch.tensor([code]), code < 0)


def test_silent_channels_are_found(model, pictures):
    seen = fired(model, pictures)
    assert len(seen) == len(hidden_layers(model))
    assert (~seen["priors.0.trunk.rest.0"]).nonzero().flatten().tolist() == [1, 4, 5]
    assert (~seen["priors.2.dequantiser.refiner.rest.0"]).nonzero().flatten().tolist() == [0, 1, 2]
    assert not seen["priors.1.dequantiser.join"].any()
    assert seen["priors.2.dequantiser.join"].any()
    assert not any(isinstance(own, nn.Module) and own._forward_hooks for own in model.modules())


def test_what_is_left_computes_the_same(model, pictures):
    smaller = compacted(model, fired(model, pictures))
    assert len(smaller.sets[0].trunk.layers[0].bias) == 6  # five fire, a block is two
    assert smaller.sets[1].dequantiser.join is None
    assert smaller.sets[0].parent == TINY.middle.channels
    assert smaller.sets[1].parent == model.sets[1].parent
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())
    for code in (0.0, 300.0, -1000.0):
        before, after = (outcomes(own, pictures, code) for own in (model, smaller))
        # Weights lie on finer grids where a sum has fewer terms.
        assert after.bits.item() == pytest.approx(before.bits.item(), rel=2e-3)
        assert after.squared_error.item() == pytest.approx(before.squared_error.item(), rel=2e-3, abs=1e-6)


def test_what_is_left_can_be_made_smaller_again(model, pictures):
    smaller = compacted(model, fired(model, pictures))
    channels = {hidden.name: torch.ones(hidden.kernels[0][0].weight.shape[0]) > 0 for hidden in hidden_layers(smaller)}
    channels["priors.0.trunk.rest.0"][[0, 2]] = False
    channels["priors.0.trunk.first"][[1, 2]] = False
    again = cut(smaller, channels)
    assert int(again.kept["priors.0.trunk.rest.0"].sum()) == 4
    assert len(again.kept["priors.0.trunk.rest.0"]) == TINY.fine.channels
    assert again.sets[0].trunk.carry.weight.shape[0] == 4 * (TINY.fine.channels - 2)
    at_once = cut(model, again.kept)
    assert all(torch.equal(one, other) for one, other in zip(at_once.parameters(), again.parameters(), strict=True))


def test_the_model_itself_stays_as_it_is(model, pictures):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    compacted(model, fired(model, pictures))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_dequantiser_without_a_refiner_keeps_what_it_joins(model, pictures):
    channels = fired(model, pictures)
    channels["priors.0.dequantiser.join"][:] = False
    smaller = compacted(model, channels)
    assert smaller.sets[0].dequantiser.join is not None
    assert len(smaller.sets[0].dequantiser.join.bias) == 2
    assert outcomes(smaller, pictures, 200.0).bits.isfinite().all()
