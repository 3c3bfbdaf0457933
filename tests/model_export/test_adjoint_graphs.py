"""adjoint_graphs: kernels are those of the adjoint, and graphs give what torch's derivative is, but for a few bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model_export import marginal
from model_export.adjoint_graphs import known_taps, phases_back, rounded, transposed
from model_export.checkpoint import load_average
from model_export.config import TINY
from model_export.data import synthetic_pictures, to_tensor
from model_export.integers import ACCUMULATOR_LIMIT
from model_export.marginal import derivatives
from model_export.model import CodecModel
from model_export.quantiser import RATE_DISTORTION, choice_strength, log2_delta
from model_export.tables import positions_of_codes
from service import codec
from service.codec import lattice
from service.codec.clock import Clock
from service.codec.container import code_of
from service.codec.elsewhere import FIRST_SHARE, costs_elsewhere
from service.codec.prior import LUMA_PLANES, PHASES

CHECKPOINT = Path(marginal.__file__).parent / "checkpoints" / "bijou-1.pt"


def apart(x: torch.Tensor) -> torch.Tensor:
    """[1, 4 C, h, w], places of 2x2 cells one after the other -> [1, C, 2 h, 2 w]."""
    return F.pixel_shuffle(x.unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2), 2)


def test_a_transposed_kernel_is_the_adjoint():
    generator = torch.Generator().manual_seed(0)
    weight, x, y = (torch.randn(*shape, generator=generator) for shape in ((4, 3, 3, 3), (1, 3, 7, 9), (1, 4, 7, 9)))
    forwards = (F.conv2d(x, weight, padding=1) * y).sum()
    assert forwards.item() == pytest.approx((F.conv2d(y, transposed(weight), padding=1) * x).sum().item(), rel=1e-4)


@pytest.mark.parametrize("phase", range(4))
@pytest.mark.parametrize("side", [3, 5])
def test_the_adjoint_of_every_other_place(phase, side):
    generator = torch.Generator().manual_seed(phase)
    row, column = PHASES[phase]
    weight, x, y = (torch.randn(*own, generator=generator) for own in ((4, 3, side, side), (1, 3, 8, 12), (1, 4, 4, 6)))
    before, after = side // 2, side // 2 - 1
    padded = F.pad(x, (before - column, after + column, before - row, after + row))
    forwards = (F.conv2d(padded, weight, stride=2) * y).sum()
    back = apart(F.conv2d(y, phases_back(weight, row, column, before), padding=1))
    assert forwards.item() == pytest.approx((back * x).sum().item(), rel=1e-4)


@pytest.mark.parametrize("number", range(1, 8))
def test_heads_read_bins_of_earlier_passes_alone(number):
    """Of planes of all bins, masked taps see what unmasked ones see of those that are known."""
    head = CodecModel(TINY).sets[0].heads[number]
    conv = head.first.terms[1]
    weight = torch.randn(conv.weight.shape, generator=torch.Generator().manual_seed(number))
    planes = torch.randn(1, conv.weight.shape[1], 8, 12, generator=torch.Generator().manual_seed(9))
    known = planes.clone()
    for phase, (row, column) in enumerate(PHASES):
        if phase >= number % 4:
            known[:, LUMA_PLANES if number >= 4 else 0 :, row::2, column::2] = 0
    whole, seen = (F.pad(own, head.pads) for own in (planes, known))
    masked = F.conv2d(whole, weight * known_taps(head, number), stride=2)
    torch.testing.assert_close(masked, F.conv2d(seen, weight, stride=2))


def test_rounded_kernels_have_8_bits_and_exact_sums():
    weight = torch.randn(5, 400, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight[1], weight[2], weight[3] = weight[1] * 1e-3, 0, weight[3].sign()
    result = rounded(weight)
    for own, found in zip(weight, result, strict=True):
        unit = next((2.0**-k for k in range(-9, 40) if (found * 2.0**k).frac().abs().max() == 0), 1.0)
        whole = found / unit
        assert whole.abs().max() <= 127
        assert 128 * whole.abs().sum() < ACCUMULATOR_LIMIT
        assert (found - own).abs().max() <= unit


@pytest.mark.parametrize("quality", [30, 55])
def test_costs_of_the_service_are_the_derivative(quality, models):
    """Of the shipped model, its own weights in torch; all levels that hold enough bins to tell."""
    model, _ = load_average(CHECKPOINT)
    model.eval().requires_grad_(requires_grad=False)
    pixels = synthetic_pictures(1, 256, seed=3)[0]
    position = torch.tensor([positions_of_codes()[code_of(quality)]], dtype=torch.float32)
    expected = derivatives(model, to_tensor(pixels[None]), position)
    artifact = models.by_name("bijou-1")
    found = costs_elsewhere(lattice.to_planes(pixels, lattice.LOSSY_UNIT), artifact, [code_of(quality)], Clock())
    for own, costs in zip(expected[:3], found[:3], strict=True):
        floats, whole = own.flatten().numpy() * FIRST_SHARE, costs.ravel().astype(np.float64)
        there = (floats != 0) & (whole != 0)
        assert there.sum() > 50
        assert np.corrcoef(floats[there], whole[there])[0, 1] > 0.6
        assert 0.5 < (floats[there] * whole[there]).sum() / np.square(floats[there]).sum() < 1.2


@pytest.mark.parametrize("effort", [1, 2])
def test_effort_costs_less_in_rate_and_distortion(effort, models):
    """In what the encoder minimises, bits and squared error at its own exchange rate; four pictures together."""
    quality = 40
    log2_step = log2_delta(torch.tensor(positions_of_codes()[code_of(quality)]))
    worth = float(choice_strength(log2_step) * RATE_DISTORTION * torch.exp2(-2 * log2_step))
    pictures = synthetic_pictures(4, 128)

    def loss(effort: int) -> float:
        target = codec.Target(quality=quality)
        found = [codec.encode(codec.Picture(own), models.default, target, effort=effort) for own in pictures]
        errors = [pictures[0].size * 255**2 / 10 ** (of.psnr_db / 10) for of in found]
        return sum(8 * len(of.stream) for of in found) + worth * sum(errors)

    assert loss(effort) < 0.995 * loss(0)
