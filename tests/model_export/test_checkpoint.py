"""checkpoint: compact ones start a run, larger models too; mixtures lie between what they are made of."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from model_export.checkpoint import MixError, begin_from, load_average, mix, save_compact
from model_export.config import TINY, PriorSize
from model_export.model import CodecModel
from model_export.prior import by_phase
from model_export.quantiser import LOSSLESS_POSITION
from model_export.train import train
from tests.model_export.conftest import SETTINGS


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


@torch.no_grad()
def test_a_wider_and_deeper_model_starts_from_a_smaller_one(checkpoint):
    fine, coarse = TINY.fine, TINY.coarse
    larger = dataclasses.replace(
        TINY,
        fine=dataclasses.replace(fine, head_channels=12),
        coarse=dataclasses.replace(coarse, layers=coarse.layers + 1),
    )
    model, average = CodecModel(larger), CodecModel(larger)
    begin_from(checkpoint, model, average)
    old = load_average(checkpoint)[0].state_dict()
    for name, weight in average.state_dict().items():
        if name in old:
            kept = tuple(slice(n) for n in old[name].shape)
            torch.testing.assert_close(weight[kept], old[name])
    wide = average.prior(0).heads[0].second.terms[0].weight
    assert (wide[:8, 8:] == 0).all()
    assert (wide[8:] != 0).any()
    same, _ = load_average(checkpoint)
    read, parent, condition = (
        torch.rand(1, 6, 8, 8),
        torch.rand(1, TINY.parent(0), 4, 4),
        average.condition(torch.zeros(1), 0),
    )
    features = average.prior(0).trunk(read, parent, condition)
    torch.testing.assert_close(features, same.prior(0).trunk(read, parent, condition))
    phase = by_phase(features)[0]
    for ours, theirs in zip(
        average.prior(0).heads[0](phase, None, condition), same.prior(0).heads[0](phase, None, condition), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@torch.no_grad()
def test_a_model_that_grew_everywhere_computes_the_same_at_first(checkpoint):
    def grown(size: PriorSize) -> PriorSize:
        widths = {f.name: getattr(size, f.name) for f in dataclasses.fields(size)}
        more = {name: width + 4 for name, width in widths.items() if name.endswith("channels") and width}
        return dataclasses.replace(size, layers=size.layers + 1, **more)

    larger = dataclasses.replace(TINY, fine=grown(TINY.fine), middle=grown(TINY.middle), coarse=grown(TINY.coarse))
    model, average = CodecModel(larger), CodecModel(larger)
    begin_from(checkpoint, model, average)
    small, large = load_average(checkpoint)[0], model.eval()
    pictures = 255 * torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    for code, lossless in ((torch.tensor([40.0, 500.0]), False), (torch.full((2,), float(LOSSLESS_POSITION)), True)):
        was, now = small(pictures, code, lossless), large(pictures, code, lossless)
        torch.testing.assert_close(now.bits, was.bits, rtol=1e-4, atol=0.1)
        torch.testing.assert_close(now.picture, was.picture, rtol=0, atol=0.05)


@pytest.fixture(scope="module")
def run(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("mix") / "run.pt"
    train(TINY, dataclasses.replace(SETTINGS, max_steps=3, seed=1), [], [], out, start=checkpoint)
    return out


@pytest.mark.parametrize("last", [False, True])
def test_a_mixture_lies_between_start_and_run(checkpoint, run, tmp_path, last):
    mix(checkpoint, run, tmp_path / "mixed.pt", 0.25, last)
    mixed, progress = load_average(tmp_path / "mixed.pt")
    assert progress.step == 3
    begin = load_average(checkpoint)[0].state_dict()
    end = torch.load(run, weights_only=True)["model" if last else "average"]
    moved = 0
    for name, weight in mixed.state_dict().items():
        torch.testing.assert_close(weight, 0.75 * begin[name] + 0.25 * end[name])
        moved += not torch.equal(weight, begin[name])
    assert moved > 10


def test_a_mixture_of_last_weights_needs_a_full_checkpoint(checkpoint, run, tmp_path):
    save_compact(run, tmp_path / "compact.pt")
    with pytest.raises(MixError, match="averaged weights only"):
        mix(checkpoint, tmp_path / "compact.pt", tmp_path / "mixed.pt", 0.5, last=True)


def test_models_of_different_sizes_do_not_mix(checkpoint, run, tmp_path):
    state = torch.load(run, weights_only=True)
    state["config"]["levels"] += 1
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(MixError, match="different sizes"):
        mix(checkpoint, tmp_path / "other.pt", tmp_path / "mixed.pt", 0.5)


@torch.no_grad()
def test_an_older_checkpoint_has_one_prior_for_all_coarse_levels(tmp_path):
    config = dataclasses.replace(TINY, coarsest=TINY.coarse)
    state = CodecModel(config).state_dict()
    sizes = config.as_dict()
    del sizes["coarsest"]
    older = {name: own for name, own in state.items() if not name.startswith("priors.3.")}
    torch.save({"config": sizes, "kept": {}, "average": older, "progress": {"step": 3}}, tmp_path / "older.pt")
    model, progress = load_average(tmp_path / "older.pt")
    assert progress.step == 3
    assert model.config == config
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, older[name.replace("priors.3.", "priors.2.")], msg=name)
