"""replay: what dequantisers met is kept, and they learn from it without the rest of the codec."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch

from model_export import replay
from model_export.config import TINY
from model_export.model import CodecModel
from model_export.quantiser import spread
from model_export.replay import Replay


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = CodecModel(TINY)
    with torch.no_grad():
        for level in range(3):
            for conv in made.prior(level).dequantiser.last.terms:
                conv.weight.normal_(0, 0.05)
    return made


def replayed(model, levels):
    torch.manual_seed(1)
    pictures = (torch.rand(4, 3, 128, 128) * 255 for _ in itertools.count())
    return Replay(copy.deepcopy(model), pictures, levels, np.random.default_rng(0))


@pytest.mark.parametrize("levels", [range(6), range(1, 6)])
@torch.no_grad()
def test_dequantisers_as_they_were_leave_what_they_left(model, levels):
    again = replayed(model, levels)
    model.set_exact(True)
    assert again.loss(model).item() == 1
    for level in levels:
        for conv in model.prior(level).dequantiser.last.terms:
            conv.weight.zero_()
    assert again.loss(model).item() != 1


@torch.no_grad()
def test_what_is_left_is_what_the_picture_lacks(model):
    """All levels' errors, at orthogonal-enough bands, are the picture's."""
    again = replayed(model, range(6))
    again.loss(model)
    kept = sum(error for _, error in again.kept[0])
    torch.manual_seed(1)
    pictures = torch.rand(4, 3, 128, 128) * 255
    model.eval().set_exact(True)
    torch.testing.assert_close(kept, model(pictures, spread(4)).squared_error, rtol=0.2, atol=0)


def test_offsets_are_learned_from_batches_met_before(model):
    again = replayed(model, range(1, 6))
    parameters = [p for name, p in model.named_parameters() if ".refiner." in name or ".dequantiser.last." in name]
    adam = torch.optim.Adam(parameters, 0.01)
    losses = []
    for _ in range(40):
        loss = again.loss(model)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert len(again.kept) == 40 // replay.USES
    assert np.mean(losses[-8:]) < np.mean(losses[:8])


def test_only_the_newest_batches_are_kept(model, monkeypatch):
    monkeypatch.setattr(replay, "KEPT", 2)
    monkeypatch.setattr(replay, "USES", 1)
    again = replayed(model, range(1, 6))
    for _ in range(2):
        again.loss(model)
    first = again.kept[0]
    again.loss(model)
    assert len(again.kept) == 2
    assert first not in again.kept
