"""train: a tiny model on synthetic pictures learns, stops, resumes, and leaves a checkpoint a later run can read."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
import torch

from model_export.checkpoint import load_average
from model_export.config import TINY
from model_export.model import CodecModel
from model_export.quantiser import LOSSLESS_POSITION
from model_export.recorded import Recorded
from model_export.train import schedule, train
from tests.model_export.conftest import SETTINGS


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


def test_a_run_leaves_the_numbers_of_its_process_alone(checkpoint):
    assert torch.tensor(1e-310, dtype=torch.float64).mul(2).item() > 0


def test_a_resumed_run_goes_on_counting(checkpoint, tmp_path):
    copy = tmp_path / "copy.pt"
    copy.write_bytes(checkpoint.read_bytes())
    train(TINY, dataclasses.replace(SETTINGS, max_steps=8, exact=True), [], [], copy)
    _, progress = load_average(copy)
    assert progress.step == 8
    assert len(progress.history) > len(load_average(checkpoint)[1].history)


@pytest.mark.parametrize(
    ("part", "moving"),
    [
        ("prior", r"priors\."),
        ("dequantiser", r".*\.dequantiser\."),
        ("offsets", r"priors\.[123]\.dequantiser\.(refiner|last)\."),
    ],
)
def test_a_part_is_trained_alone(checkpoint, tmp_path, part, moving):
    before = dict(load_average(checkpoint)[0].named_parameters())
    settings = dataclasses.replace(SETTINGS, max_steps=2, part=part)
    after = train(TINY, settings, [], [], tmp_path / "part.pt", start=checkpoint)
    changed = {name for name, weight in after.named_parameters() if not torch.equal(weight, before[name])}
    assert changed
    assert all(re.match(moving, name) for name in changed)


def test_mixed_precision_and_wide_crops_train_too(tmp_path):
    out = tmp_path / "mixed.pt"
    settings = dataclasses.replace(SETTINGS, batch=4, max_steps=2, mixed=True, wide_share=1.0, lossless_share=0.5)
    train(TINY, settings, [], [], out)
    model, progress = load_average(out)
    assert progress.step == 2
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_crops_may_come_from_other_processes(tmp_path):
    out = tmp_path / "c.pt"
    model = train(TINY, dataclasses.replace(SETTINGS, workers=1, max_steps=1, part="prior"), [], [], out)
    assert load_average(out)[1].step == 1
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="has no CUDA")
def test_a_recorded_pass_gives_the_gradients_of_one_that_is_not():
    model = CodecModel(TINY).to("cuda").eval()
    pictures = 255 * torch.rand(2, 3, 128, 128, device="cuda")
    code = torch.full((2,), float(LOSSLESS_POSITION), device="cuda")

    def loss(pictures: torch.Tensor, lossless: bool) -> torch.Tensor:
        bits: torch.Tensor = model(pictures, code, lossless).bits
        return bits.mean()

    loss(pictures, True).backward()
    trained = [p for p in model.parameters() if p.grad is not None]
    plain = [torch.clone(p.grad) for p in trained if p.grad is not None]
    recorded = Recorded(trained, loss)
    for _ in range(2):
        assert recorded(pictures, True).item() == pytest.approx(loss(pictures, True).item(), rel=1e-3)
        for parameter, gradient in zip(trained, plain, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=0.02, atol=1e-2)


@torch.no_grad()
def test_mixed_precision_is_near_full_precision_and_never_used_in_exact_mode():
    torch.manual_seed(2)
    model = CodecModel(TINY).eval()
    for parameter in model.priors.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    picture, code = torch.rand(1, 3, 128, 128) * 255, torch.tensor([400.0])
    full = model(picture, code).bits
    model.mixed = True
    narrow = model(picture, code).bits
    assert not torch.equal(narrow, full)
    torch.testing.assert_close(narrow, full, rtol=0.02, atol=0)
    model.set_exact(True)
    exact = model(picture, code).bits
    model.mixed = False
    assert torch.equal(model(picture, code).bits, exact)


def test_the_learning_rate_warms_up_and_cools_down():
    assert schedule(0.0, 0) < schedule(0.0, 50) < schedule(0.0, 100)
    assert schedule(0.1, 1000) > schedule(0.5, 1000) > schedule(1.0, 1000) > 0


@torch.no_grad()
def test_what_is_left_of_zero_bins_is_a_share_of_their_energy():
    model = CodecModel(TINY)
    steps = torch.full((1, 12, 1, 1), 8.0)
    latent = torch.full((1, 9, 4, 4), 2.0)
    latent[:, :, 0, 0] = 100.0
    bins = (latent > 4).float()
    assert model.unforetold(latent, steps, bins, torch.zeros_like(latent), 0).item() == 1
    assert model.unforetold(latent, steps, bins, torch.full_like(latent, 0.5), 0).item() == 0
    assert model.unforetold(latent, steps, bins, torch.full_like(latent, 0.25), 0).item() == pytest.approx(0.25)


def test_the_dequantiser_and_what_it_reads_learn_to_foretell():
    torch.manual_seed(0)
    model = CodecModel(TINY)
    for prior in (model.prior(0), model.prior(1)):
        torch.nn.init.normal_(prior.dequantiser.last.terms[0].weight)
    picture = torch.rand(2, 3, 128, 128) * 255
    model(picture, torch.tensor([0.0, 300.0])).unforetold.sum().backward()
    for prior in (model.prior(0), model.prior(1)):
        assert all(learns(conv.weight) for conv in prior.trunk.first.terms)
        for layer in (prior.dequantiser.layers[0], prior.dequantiser.join):
            assert layer is not None
            assert learns(layer.conv.weight)
            assert learns(layer.bias)
        assert not any(learns(head.last.terms[0].weight) for head in prior.heads)


@pytest.mark.parametrize("lossless", [False, True])
def test_levels_that_are_not_coded_cost_nothing_and_stay_exact(lossless):
    torch.manual_seed(0)
    model = CodecModel(TINY).eval()
    picture = torch.randint(0, 256, (2, 3, 128, 128)).float()
    code = torch.full((2,), float(LOSSLESS_POSITION)) if lossless else torch.tensor([100.0, 300.0])
    whole, coarse = model(picture, code, lossless), model(picture, code, lossless, finest=1)
    assert (coarse.bits < whole.bits / 2).all()
    if lossless:
        assert torch.equal(coarse.picture, picture)
    else:
        assert (coarse.squared_error < whole.squared_error).all()
    nothing = model(picture, code, lossless, finest=TINY.levels)
    assert (nothing.squared_error <= coarse.squared_error).all()
    coarse.bits.sum().backward()
    assert not any(learns(parameter) for parameter in model.prior(0).parameters())
    assert learns(model.prior(1).heads[0].last.terms[0].weight)


def learns(parameter: torch.Tensor) -> bool:
    return parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
