"""integers: bounds are proven below 2**24, and within them float32 is float64 to the bit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from model_export.config import TINY
from model_export.integers import (
    ACCUMULATOR_LIMIT,
    ACTIVATION_BITS,
    ACTIVATION_LIMIT,
    BYTE_BITS,
    BYTE_LIMIT,
    BYTE_WEIGHT_LIMIT,
    TOP,
    WEIGHT_LIMIT,
    ByteLayer,
    ConditionTable,
    ExactConv,
    ExactSum,
    bounded,
    grid_through,
    round_through,
)
from model_export.model import CodecModel
from model_export.verify import VerifyError, prove_bounds


def layer_of(size: float, seed: int = 0) -> ExactSum:
    torch.manual_seed(seed)
    table = ConditionTable(2, 3, 5)
    layer = ExactSum([ExactConv(7, 5, 3), ExactConv(4, 5, 1)], table)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter) * size)
    layer.set_exact(True)
    return layer


def convs_of(layer: ExactSum) -> list[ExactConv]:
    return [conv for conv in layer.convs if isinstance(conv, ExactConv)]


@torch.no_grad()
@pytest.mark.parametrize("size", [0.0, 1e-4, 0.1, 3.0, 40.0])
@pytest.mark.parametrize("content", ["random", "highest", "signs of the weights"])
def test_an_exact_layer_in_float32_is_the_same_in_float64(size, content):
    layer = layer_of(size)
    assert layer.proven_bound() < ACCUMULATOR_LIMIT
    shapes = [(2, 7, 6, 9), (2, 4, 6, 9)]
    if content == "random":
        inputs = [torch.randint(-ACTIVATION_LIMIT, ACTIVATION_LIMIT + 1, s) / 2**ACTIVATION_BITS for s in shapes]
    elif content == "highest":
        inputs = [torch.full(s, TOP) for s in shapes]
    else:
        signs = [torch.sign(conv.weight[:1].sum((2, 3), keepdim=True)) for conv in convs_of(layer)]
        inputs = [sign.expand(s) * TOP for sign, s in zip(signs, shapes, strict=True)]
    condition = torch.zeros(2, 6)
    condition[:, 0], condition[:, 1] = 0.25, 0.75
    exact = layer.table(condition).double()
    for conv, x, weight in zip(convs_of(layer), inputs, layer.integer_weights(), strict=True):
        exact = exact + F.conv2d(x.double(), weight.double(), padding=conv.kernel // 2)
    assert torch.equal(layer(inputs, condition).double(), exact)


@torch.no_grad()
@pytest.mark.parametrize("size", [1e-3, 1.0, 60.0])
def test_integer_weights_are_integers_of_ten_bits(size):
    layer = layer_of(size)
    total = layer.total_bound()
    for conv, weight in zip(convs_of(layer), layer.integer_weights(), strict=True):
        whole = weight * torch.exp2(conv.shifts(total)).float().view(-1, 1, 1, 1)
        assert torch.equal(whole, whole.round())
        assert whole.abs().max() <= WEIGHT_LIMIT


@torch.no_grad()
@pytest.mark.parametrize("size", [0.0, 1e-4, 0.1, 3.0, 40.0])
def test_a_layer_of_bytes_is_integer_arithmetic(size):
    torch.manual_seed(1)
    layer = ByteLayer(7, 5)
    for parameter in layer.parameters():
        parameter.copy_(torch.randn_like(parameter) * size)
    layer.set_exact(True)
    assert layer.proven_bound() < ACCUMULATOR_LIMIT
    scale = torch.exp2(layer.shifts())
    weight, bias = layer.integer_parts()
    kernel, offset = weight.double() * scale.view(-1, 1, 1, 1), bias.double() * scale * 2**BYTE_BITS
    for whole in (kernel, offset):
        assert torch.equal(whole, whole.round())
    assert kernel.abs().max() <= BYTE_WEIGHT_LIMIT
    x = torch.randint(0, BYTE_LIMIT + 1, (2, 7, 6, 9))
    sums = F.conv2d(x.double(), kernel, padding=1) + offset[:, None, None]
    expected = torch.clamp(torch.round(sums / scale.view(-1, 1, 1)), 0, BYTE_LIMIT)
    assert torch.equal(layer(x / 2**BYTE_BITS).double() * 2**BYTE_BITS, expected)


@torch.no_grad()
def test_every_layer_of_a_model_is_proven():
    torch.manual_seed(0)
    model = CodecModel(TINY)
    model.set_exact(True)
    bounds = prove_bounds(model)
    assert {
        "priors.0.trunk.first",
        "priors.1.trunk.first",
        "flow.coupling.update.last",
        "priors.1.dequantiser.join",
    } <= set(bounds)
    assert 0 < max(bounds.values()) < ACCUMULATOR_LIMIT


def test_a_layer_beyond_the_limit_fails_the_proof(monkeypatch):
    model = CodecModel(TINY)
    monkeypatch.setattr(ExactSum, "proven_bound", lambda self: ACCUMULATOR_LIMIT)
    with pytest.raises(VerifyError, match="not below"):
        prove_bounds(model)


def test_rounding_passes_gradients_straight_through():
    x = torch.tensor([0.4, 1.6, -2.5], requires_grad=True)
    rounded = round_through(x)
    assert rounded.tolist() == [0.0, 2.0, -2.0]
    rounded.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 1]
    assert grid_through(torch.tensor(0.3), 2).item() == 0.25


@pytest.mark.parametrize(("sign", "expected"), [(1.0, [0.0, 1.0, 1.0]), (-1.0, [-1.0, -1.0, 0.0])])
def test_a_bounded_value_can_come_back_but_not_go_further(sign, expected):
    x = torch.tensor([-3.0, 0.5, 3.0], requires_grad=True)
    (sign * bounded(x, -1.0, 1.0)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == expected
