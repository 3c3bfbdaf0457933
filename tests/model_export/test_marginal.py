"""marginal: costs elsewhere are the derivative they claim to be, and what is chosen by them is an ordinary stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model_export import dequantiser, marginal, prior, quantiser
from model_export.__main__ import main
from model_export.bijou_codec import bijou_codecs, searched_codec
from model_export.config import TINY
from model_export.data import synthetic_pictures, to_tensor
from model_export.marginal import MarginalCosts, SearchError, costs_of, derivatives, loss_elsewhere
from model_export.metrics import psnr
from model_export.model import CodecModel
from model_export.quantiser import RATE_DISTORTION, choice_strength, log2_delta
from model_export.tables import positions_of_codes
from service import codec
from service.codec import lattice
from service.codec.container import code_of
from tests.codec.samples import Pixels, pixels_of

CHECKPOINT = Path(marginal.__file__).parent / "checkpoints" / "bijou-1.pt"
SMALL, WIDE = (136, 200), (96, 1056)
QUALITY = 20


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = CodecModel(TINY).eval()
    with torch.no_grad():
        for parameter in made.priors.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return made


@pytest.fixture(scope="module")
def picture():
    return to_tensor(synthetic_pictures(1, 128)[0][None])


@pytest.fixture(scope="module")
def shipped(models):
    return costs_of(CHECKPOINT, models.by_name("bijou-1"), rounds=1)


def encoded(pixels: Pixels, models, quality=QUALITY, costs=None):
    return codec.encode(codec.Picture(pixels), models.default, codec.Target(quality=quality), elsewhere=costs)


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


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_search_costs_less_in_rate_and_distortion(rounds, models, shipped):
    """In what the encoder minimises, bits and squared error at its own exchange rate; four pictures together."""
    quality = 40
    log2_step = log2_delta(torch.tensor(positions_of_codes()[code_of(quality)]))
    worth = float(choice_strength(log2_step) * RATE_DISTORTION * torch.exp2(-2 * log2_step))
    pictures = synthetic_pictures(4, 128)

    def loss(costs):
        found = [encoded(pixels, models, quality, costs) for pixels in pictures]
        errors = [pictures[0].size * 255**2 / 10 ** (of.psnr_db / 10) for of in found]
        return sum(8 * len(of.stream) for of in found) + worth * sum(errors)

    assert loss(MarginalCosts(shipped.model, rounds)) < 0.995 * loss(None)


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["one tile", "two"])
def test_its_streams_decode_and_come_again_as_all_do(size, models, shipped):
    found = encoded((40 + pixels_of(*size).astype(np.int32) * 170 // 255).astype(np.uint8), models, costs=shipped)
    shown = codec.decode(found.stream, models).picture.pixels
    assert encoded(shown, models).stream == found.stream
    assert encoded(shown, models, costs=shipped).stream == found.stream


@pytest.mark.parametrize(("quality", "asked"), [(1, 1), (90, 1), (90.125, 0), (100, 0)])
def test_costs_are_asked_for_up_to_quality_90(quality, asked, models):
    calls = []

    def costs(pixels, code):
        calls.append(code)
        return tuple(np.zeros((9, *size), np.int16) for size in lattice.sizes_of(*pixels.shape[:2])[1:])

    encoded(pixels_of(40, 56), models, quality, costs)
    assert calls == [code_of(quality)] * asked


def test_what_was_decoded_is_not_asked_about(models):
    def costs(pixels, code):
        raise AssertionError

    shown = codec.decode(encoded(pixels_of(*SMALL), models).stream, models).picture.pixels
    encoded(shown, models, costs=costs)


def test_patches_cost_what_they_would_alone(shipped, monkeypatch):
    monkeypatch.setattr(marginal, "PATCH", 128)
    pixels = pixels_of(*SMALL)
    code = code_of(QUALITY)
    whole = shipped(pixels, code)
    assert [own.shape for own in whole] == [(9, *size) for size in lattice.sizes_of(*SMALL)[1:]]
    assert all(own.any() for own in whole[:4])
    corner = shipped(np.ascontiguousarray(pixels[128:, 128:]), code)
    for level, own in enumerate(corner):
        np.testing.assert_array_equal(whole[level][:, 128 >> level + 1 :, 128 >> level + 1 :], own)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 3)])
def test_small_pictures(size, models, shipped):
    found = encoded(pixels_of(*size), models, costs=shipped)
    assert codec.decode(found.stream, models).picture.pixels.shape[:2] == size


def test_it_is_one_more_codec_to_measure(models, shipped):
    searched = searched_codec(models.default, shipped, CHECKPOINT, (5, 90, 95, 100))
    plain = bijou_codecs(models.default, (5, 90), ())["bijou"]
    pixels = pixels_of(64, 80)
    coded = searched.encode(pixels, 30)
    assert coded.stream == encoded(pixels, models, 30, shipped).stream != plain.encode(pixels, 30).stream
    assert psnr(pixels, searched.decode(coded.stream)) == pytest.approx(coded.promised_db, abs=1e-3)
    assert searched.again is not None
    assert searched.again(pixels, 30).stream == plain.encode(pixels, 30).stream
    assert (searched.qualities, searched.lossless_quality) == (plain.qualities, None)
    assert searched.setting != plain.setting


def test_a_search_leaves_the_numbers_of_its_process_alone(shipped):
    shipped(pixels_of(16, 16), code_of(QUALITY))
    assert torch.tensor(1e-310, dtype=torch.float64).mul(2).item() > 0


def test_another_model_s_checkpoint_is_refused(checkpoint, models):
    with pytest.raises(SearchError, match="take its own checkpoint"):
        costs_of(checkpoint, models.default)


def test_a_search_without_rounds_is_refused():
    with pytest.raises(SearchError, match="at least one round"):
        MarginalCosts(CodecModel(TINY), 0)


def test_the_command_writes_streams(tmp_path, models, capsys):
    pixels = pixels_of(64, 80)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    arguments = ["encode", str(tmp_path / "a.png"), "--checkpoint", str(CHECKPOINT), "--quality", "30"]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--rounds", "1"]) == 0
    stream = (tmp_path / "out" / "a.bij").read_bytes()
    assert codec.decode(stream, models).picture.pixels.shape == pixels.shape
    assert f"{len(stream)} bytes" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.bij"]


def test_the_command_says_what_is_wrong_in_a_line(tmp_path, checkpoint, capsys):
    (tmp_path / "a.png").write_bytes(b"no picture")
    for given, said in ((CHECKPOINT, "not an image"), (checkpoint, "take its own checkpoint"), (tmp_path / "b", "b")):
        assert main(["encode", str(tmp_path / "a.png"), "--checkpoint", str(given), "--out", str(tmp_path)]) == 2
        assert said in capsys.readouterr().err
