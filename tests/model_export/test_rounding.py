"""rounding: whole numbers that make good one another's errors, by what layers read."""

from __future__ import annotations

import copy

import pytest
import torch

from model_export.byte_sum import ByteSum
from model_export.config import TINY
from model_export.data import synthetic_pictures
from model_export.integers import BYTE_BITS, BYTE_WEIGHT_LIMIT, ByteLayer, ConditionTable, ExactConv
from model_export.model import CodecModel
from model_export.rounding import Moments, rounded, rounded_rows, settle


def mixed(places: int, inputs: int) -> torch.Tensor:
    """Bytes' values that go together and are not 0 on the mean, [places, inputs]."""
    generator = torch.Generator().manual_seed(4)
    common = torch.randn(places, 3, generator=generator) @ torch.randn(3, inputs, generator=generator)
    return (common + 0.3 * torch.randn(places, inputs, generator=generator) + 2).clamp(0, 15)


def error(weight: torch.Tensor, found: torch.Tensor, read: torch.Tensor) -> float:
    """How much sums are off by, but for their mean."""
    return float(((weight - found).double() @ read.T.double()).var(1).mean())


def test_what_goes_together_makes_good_its_errors():
    read, weight = mixed(4000, 40), 20 * torch.randn(6, 40, generator=torch.Generator().manual_seed(1))
    moments = Moments(40)
    for part in read.split(1000):
        moments.see(part)
    found = rounded_rows(weight, moments.covariance())
    assert torch.equal(found, found.round())
    assert error(weight, found, read) < error(weight, weight.round(), read) / 2


def test_what_is_read_independently_is_rounded_to_the_nearest():
    weight = 20 * torch.randn(6, 40, generator=torch.Generator().manual_seed(1))
    assert torch.equal(rounded_rows(weight, torch.eye(40, dtype=torch.float64)), weight.round().double())


def test_weights_stay_bytes():
    weight = torch.full((2, 8), 127.4)
    weight[1] = -127.4
    found = rounded_rows(weight, torch.ones(8, 8, dtype=torch.float64) + 0.01 * torch.eye(8, dtype=torch.float64))
    assert found.abs().max() == BYTE_WEIGHT_LIMIT


@torch.no_grad()
@pytest.mark.parametrize("kind", ["layer", "sum"])
def test_a_settled_layer_gives_the_same_on_the_mean(kind):
    torch.manual_seed(2)
    layer: ByteLayer | ByteSum
    layer = (
        ByteLayer(5, 7) if kind == "layer" else ByteSum([ExactConv(45, 7, 1, bits=BYTE_BITS)], ConditionTable(1, 2, 7))
    )
    read, moments = mixed(3000, 45), Moments(45)
    moments.see(read)
    conv = layer.conv if isinstance(layer, ByteLayer) else layer.terms[0]
    bias = layer.bias if isinstance(layer, ByteLayer) else layer.table.common
    before, shift = conv.weight.flatten(1) @ read.T, bias.clone()
    settle(layer, moments)
    after = conv.weight.flatten(1) @ read.T + (bias - shift)[:, None]
    assert (after.mean(1) - before.mean(1)).abs().max() < 1e-3
    whole = conv.weight * torch.exp2(layer.shifts()).view(-1, 1, 1, 1)
    assert torch.equal(whole, whole.round())


@torch.no_grad()
def test_a_rounded_model_is_whole_and_the_trained_one_as_it_was():
    torch.manual_seed(0)
    model = CodecModel(TINY).eval()
    before = copy.deepcopy(model.state_dict())
    result = rounded(model, synthetic_pictures(3, 256))
    assert all(torch.equal(own, before[name]) for name, own in model.state_dict().items())
    for name, layer in result.named_modules():
        if isinstance(layer, ByteLayer):
            assert torch.equal(layer.integer_parts()[0], layer.conv.weight), name
        if isinstance(layer, ByteSum):
            assert all(map(torch.equal, layer.integer_weights(), [conv.weight for conv in layer.terms])), name
    assert torch.equal(result.flow.wavelet.offsets, model.flow.wavelet.offsets)
