"""wake: channels that never fire begin anew, and change nothing until something is learned."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

from model_export.config import TINY
from model_export.data import synthetic_pictures
from model_export.silent import compacted, fired, hidden_layers
from model_export.wake import wake
from tests.model_export.conftest import firing, outcome


@pytest.fixture
def model():
    """Of one layer three channels are dead, of two all that a join gives, and of a head one."""
    made = firing()
    with torch.no_grad():
        made.sets[0].trunk.layers[0].bias[[1, 4, 5]] = -1e3
        made.sets[1].heads[2].first.table.common[3] = -1e3
        for prior in made.sets[1:]:
            assert prior.dequantiser.join is not None
            prior.dequantiser.join.bias[:] = -1e3
    return made


@pytest.fixture
def pictures():
    return [own[:70, :90] for own in synthetic_pictures(7, 96)]


def test_a_woken_model_computes_what_it_did(model, pictures):
    before = copy.deepcopy(model)
    dead = sum(int((~own).sum()) for own in fired(model, pictures).values())
    assert wake(model, pictures) == dead >= 3 + 1 + TINY.middle.channels + TINY.coarse.channels
    for code in (0.0, 300.0, -1000.0):
        with torch.no_grad():
            own, was = outcome(model, code), outcome(before, code)
        assert own.bits.item() == pytest.approx(was.bits.item(), rel=1e-5)
        assert own.squared_error.item() == pytest.approx(was.squared_error.item(), rel=1e-5)


def test_what_was_dead_fires_and_learns(model, pictures):
    wake(model, pictures)
    seen = fired(model, pictures)
    for name in ("priors.0.trunk.rest.0", "priors.1.dequantiser.join", "priors.2.dequantiser.join"):
        assert seen[name].float().mean() > 0.5  # by chance one or two may still not
    joins = [prior.dequantiser.join for prior in model.sets[1:]]
    model.train()
    outcome(model, 100.0).bits.sum().backward()
    readers = [own.readers for own in hidden_layers(model) if any(own.layer is join for join in joins)]
    for reader, first in itertools.chain(*readers):
        gradient = reader.weight.grad
        assert gradient is not None
        assert gradient[:, first:].abs().sum() > 0


def test_what_fires_stays_as_it_is(model, pictures):
    before, seen = copy.deepcopy(model), fired(model, pictures)
    wake(model, pictures)
    fires = seen["priors.0.trunk.rest.0"]
    own, was = (made.sets[0].trunk.layers[0] for made in (model, before))
    assert torch.equal(own.conv.weight[fires], was.conv.weight[fires])
    assert torch.equal(own.bias[fires], was.bias[fires])


def test_a_model_made_smaller_is_woken_too(model, pictures):
    smaller = compacted(model, fired(model, pictures))  # blocks of 16: what is dead in one was kept
    before = copy.deepcopy(smaller)
    assert wake(smaller, pictures) > 0
    with torch.no_grad():
        assert outcome(smaller, 300.0).bits.item() == pytest.approx(outcome(before, 300.0).bits.item(), rel=1e-5)
