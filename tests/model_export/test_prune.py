"""prune: what tells least for its time goes, what it usually told stays, and a smaller model is trained on."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from PIL import Image

from model_export import prune as pruning
from model_export import silent
from model_export.__main__ import main
from model_export.checkpoint import MixError, load_average, mix, save_compact
from model_export.config import TINY
from model_export.data import synthetic_pictures, to_tensor
from model_export.export import Provenance, export
from model_export.loss import loss_of
from model_export.prune import owners_of, prune, pruned, told, zeroed
from model_export.silent import hidden_layers
from model_export.train import train
from tests.model_export.conftest import SETTINGS, firing

LAYER = "priors.0.trunk.rest.0"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Blocks of two channels, few small crops."""
    for module in (silent, pruning):
        monkeypatch.setattr(module, "BLOCK", 2)
    monkeypatch.setattr(pruning, "BATCH", 2)


@pytest.fixture
def model():
    return firing().train()


@pytest.fixture
def pictures():
    return synthetic_pictures(4, 160)


def losses(model, count=3):
    batch = to_tensor(torch.stack([torch.from_numpy(p) for p in synthetic_pictures(2, 128)]).numpy())
    return [lambda: (loss_of(model, batch, False), len(batch)) for _ in range(count)]


def named(model, name):
    return next(hidden for hidden in hidden_layers(model) if hidden.name == name)


def outcome(model, code):
    picture = to_tensor(synthetic_pictures(1, 128, seed=5)[0][None])
    with torch.no_grad():
        return model.eval()(picture, torch.tensor([code]), code < 0)


def test_what_nobody_reads_tells_nothing_and_goes_first(model):
    hidden = named(model, LAYER)
    with torch.no_grad():
        for reader, first in hidden.readers:
            reader.weight[:, first + torch.tensor([2, 5])] = 0
    tells = told(model, losses(model))
    assert tells[LAYER].loss[[2, 5]].max() == 0
    assert tells[LAYER].loss[[0, 1, 3, 4, 6, 7]].min() > 0
    tells = {name: dataclasses.replace(own, loss=own.loss + (name != LAYER)) for name, own in tells.items()}
    assert prune(model, tells, 2.0) < 1  # nothing was asked for; what nobody reads takes nothing there
    prune(model, tells, prune(model, tells, 2.0) - 1e-9)  # the first block alone
    assert zeroed(hidden).nonzero().flatten().tolist() == [2, 5]
    assert not any(zeroed(own).any() for own in hidden_layers(model) if own.name != LAYER)
    assert not any(own._forward_hooks or own._forward_pre_hooks for own in model.modules())


def test_other_sets_keep_their_channels(model):
    tells = told(model, losses(model))
    assert prune(model, tells, 0.7, ["middle", "coarse"]) < 0.9
    gone = [own.name for own in hidden_layers(model) if zeroed(own).any()]
    assert gone
    assert all(name.startswith(("priors.1.", "priors.2.")) for name in gone)


def test_what_a_channel_usually_told_goes_into_biases(model):
    """Channels that are the same everywhere tell nothing beyond their mean, and nothing changes without them."""
    names = (LAYER, "priors.1.dequantiser.refiner.first", "priors.2.trunk.first", "priors.0.chroma.2.second")
    with torch.no_grad():
        for name in names:
            hidden = named(model, name)
            for conv, outputs in hidden.kernels:
                conv.weight[silent.rows_of(torch.tensor([1, 3]), outputs)] = 0
            for _, _, bias in hidden.biases:
                bias[..., [1, 3]] = 1.5 / len(hidden.biases)
    before = copy.deepcopy(model)
    tells, owners = told(model, losses(model)), owners_of(model)
    for name in names:
        hidden = named(model, name)
        assert tells[name].usual[[1, 3]].tolist() == pytest.approx([1.5, 1.5], rel=1e-5)
        assert tells[name].loss[[1, 3]].max() < 1e-6 * tells[name].loss.max()
        pruning.zero(hidden, torch.tensor([1, 3]), tells[name].usual[[1, 3]], owners)
        assert all(bool((bias[..., [1, 3]] == 0).all()) for _, _, bias in hidden.biases)
    inner = (slice(None), slice(None), slice(32, -32), slice(32, -32))  # at sides zeros had been read beside them
    for code in (0.0, 300.0):
        was, now = outcome(before, code), outcome(model, code)
        assert now.bits.item() == pytest.approx(was.bits.item(), rel=0.02)
        assert (now.picture - was.picture)[inner].abs().mean() < 0.5


def test_a_pruned_model_is_as_small_as_was_asked_for(model, pictures):
    before = copy.deepcopy(model.state_dict())
    smaller = pruned(model, pictures, 0.4, rounds=2, each=2)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    weights = [sum(p.numel() for p in made.priors.parameters()) for made in (smaller, model)]
    assert weights[0] < 0.7 * weights[1]
    kept = [hidden.kernels[0][0].weight.shape[0] for hidden in hidden_layers(smaller)]
    assert all(width % 2 == 0 and width >= 2 for width in kept)
    assert outcome(smaller, 200.0).bits.isfinite().all()
    assert outcome(smaller, -1000.0).bits.isfinite().all()
    again = pruned(model, pictures, 0.4, rounds=2, each=2)
    assert all(torch.equal(one, other) for one, other in zip(smaller.parameters(), again.parameters(), strict=True))


def test_a_pruned_checkpoint_is_trained_mixed_and_exported(checkpoint, tmp_path):
    smaller, run, compact, half = (tmp_path / f"{name}.pt" for name in ("smaller", "run", "compact", "half"))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, picture in enumerate(synthetic_pictures(2, 256)):
        Image.fromarray(picture).save(folder / f"{number}.png")
    arguments = ["prune", checkpoint, smaller, "--data", folder, "--share", "0.5", "--rounds", "1", "--batches", "2"]
    assert main([str(own) for own in arguments]) == 0
    model, _ = load_average(smaller)
    assert model.kept
    train(TINY, dataclasses.replace(SETTINGS, max_steps=1), [], [], run, start=smaller)
    train(TINY, dataclasses.replace(SETTINGS, max_steps=2), [], [], run)
    assert load_average(run)[1].step == 2
    save_compact(run, compact)
    mix(smaller, compact, half, 0.5)
    mixed, _ = load_average(half)
    assert all(torch.equal(mixed.kept[name], own) for name, own in model.kept.items())
    with pytest.raises(MixError):
        mix(checkpoint, run, tmp_path / "none.pt", 0.5)
    larger = dataclasses.replace(TINY, name="larger")
    with pytest.raises(MixError, match="left out"):
        train(larger, SETTINGS, [], [], tmp_path / "larger.pt", start=smaller)
    artifact = export(mixed, tmp_path / "models", [], Provenance("", [], 0, 0.0), 1)
    assert artifact.name == TINY.name
