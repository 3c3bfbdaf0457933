"""byte_sum, joined_graphs: one grid for all weights, and joined bytes give what the layers would add up."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto

from model_export.byte_sum import CONDITION_BITS, ByteSum
from model_export.config import TINY
from model_export.graph_builder import Graph
from model_export.integers import (
    ACCUMULATOR_LIMIT,
    BYTE_BITS,
    BYTE_LIMIT,
    BYTE_WEIGHT_LIMIT,
    ConditionTable,
    ExactConv,
)
from model_export.joined_graphs import cell_kernel, condition_bytes, joined_sum
from model_export.model import CodecModel
from model_export.prior import PLANE_LIMIT, Head
from service.codec.prior import PHASES, PLANE_ZERO

LEVELS, KNOTS, SERVED = 3, 4, slice(4, 12)
SHARES = (0, 1, 77, 128)


def layer_of(size: float, kernels: tuple[int, int] = (1, 3)) -> ByteSum:
    torch.manual_seed(5)
    convs = [ExactConv(inputs, 6, side, bits=BYTE_BITS) for inputs, side in zip((7, 5), kernels, strict=True)]
    layer = ByteSum(convs, ConditionTable(LEVELS, KNOTS, 6))
    layer.served = SERVED
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter) * size)
        layer.table.by_both[0].mul_(100.0)  # rows that are never asked for
    layer.set_exact(True)
    return layer


def condition_of(share: int) -> torch.Tensor:
    """Between the second and the third knot of the last level."""
    condition = torch.zeros(2, LEVELS * KNOTS)
    condition[:, 9], condition[:, 10] = 1 - share / 128, share / 128
    return condition


@torch.no_grad()
@pytest.mark.parametrize("size", [0.0, 1e-3, 0.3, 5.0])
def test_all_weights_are_bytes_in_one_unit(size):
    layer = layer_of(size)
    whole = layer.whole()
    assert layer.proven_bound() < ACCUMULATOR_LIMIT
    for kernel in [*whole.kernels, whole.condition]:
        assert torch.equal(kernel, kernel.round())
        assert kernel.abs().max() <= BYTE_WEIGHT_LIMIT
    assert torch.equal(whole.middle, whole.middle.round())
    assert whole.condition.shape == (6, SERVED.stop - SERVED.start)
    largest = torch.cat([kernel.flatten(1) for kernel in [*whole.kernels, whole.condition]], 1).abs().amax(1)
    assert size == 0 or largest.min() > BYTE_WEIGHT_LIMIT / 2 - 1 or layer.shifts().max() == 16


@torch.no_grad()
@pytest.mark.parametrize("size", [1e-3, 0.3, 5.0])
@pytest.mark.parametrize("share", SHARES)
def test_the_layer_in_floats_is_the_sum_of_whole_numbers(size, share):
    layer = layer_of(size)
    whole, condition = layer.whole(), condition_of(share)
    first = torch.randint(0, BYTE_LIMIT + 1, (2, 7, 6, 9)).double()
    second = torch.randint(-PLANE_LIMIT, PLANE_LIMIT + 1, (2, 5, 6, 9)).double()
    sums = F.conv2d(first, whole.kernels[0]) + F.conv2d(second, whole.kernels[1], padding=1)
    told = condition[:, SERVED].double() * 2**CONDITION_BITS
    sums = sums + (told @ whole.condition.T + whole.middle)[:, :, None, None]
    values = layer([first.float() / 2**BYTE_BITS, second.float() / 2**BYTE_BITS], condition)
    assert torch.equal(values.double(), sums * torch.exp2(-whole.shifts - BYTE_BITS).view(-1, 1, 1))


@torch.no_grad()
def test_the_bias_is_nearly_what_it_was():
    layer = layer_of(0.3)
    unit = torch.exp2(-layer.shifts() - BYTE_BITS)
    for share in SHARES:
        given, found = layer.table(condition_of(share)), layer.bias(condition_of(share))
        assert ((given - found).abs()[:, :, 0, 0] <= unit * 2 ** (CONDITION_BITS - 1) + 2**-9).all()


def test_gradients_reach_weights_and_bias_of_an_exact_sum():
    layer = layer_of(0.3)
    inputs = [torch.ones(2, 7, 6, 9), torch.ones(2, 5, 6, 9)]
    layer(inputs, condition_of(77)).sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernels", [(1, 3), (1, 1)])
def test_joined_bytes_give_what_the_layers_add_up(stride, kernels):
    layer = layer_of(0.05, kernels)
    planes = kernels[1] > 1
    pads = [1, 1, 1, 1] if planes else [0] * 4
    g = Graph("joined", BYTE_BITS, byte_kernels=True)
    x, condition = g.input("x", ["N", "H", "W", 12], TensorProto.UINT8), g.input("condition", ["N", LEVELS * KNOTS])
    joined = g.cat(x, condition_bytes(g, condition, layer, x, 12), axis=3)
    whole = layer.whole()
    out = joined_sum(g, whole, joined, whole.kernels, pads, stride)
    g.output(out, "y", ["N", "h", "w", 6], TensorProto.UINT8)
    rng = np.random.default_rng(3)
    first = rng.integers(0, BYTE_LIMIT + 1, (2, 6, 8, 7)).astype(np.uint8)
    second = rng.integers(-PLANE_LIMIT if planes else 0, PLANE_LIMIT + 1, (2, 6, 8, 5))
    given = np.concatenate([first, (second + (PLANE_ZERO if planes else 0)).astype(np.uint8)], 3)
    (found,) = ort.InferenceSession(g.model().SerializeToString()).run(
        None, {"x": given, "condition": condition_of(77).numpy()}
    )
    inputs = [torch.from_numpy(own.astype(np.float32)).permute(0, 3, 1, 2) / 2**BYTE_BITS for own in (first, second)]
    expected = layer.byte(layer(inputs, condition_of(77)))[:, :, ::stride, ::stride] * 2**BYTE_BITS
    assert 0 < expected.mean() < BYTE_LIMIT
    assert np.array_equal(expected.permute(0, 2, 3, 1).numpy(), found)


@torch.no_grad()
@pytest.mark.parametrize("number", range(1, 4))
def test_a_kernel_of_cells_reads_what_a_kernel_of_the_level_does(number):
    torch.manual_seed(number)
    head: Head = CodecModel(TINY).sets[0].heads[number]
    kernel = torch.randn(4, 9, 5, 5)
    known = torch.zeros(1, 9, 8, 12)
    phases = [torch.randn(1, 9, 4, 6) for _ in range(number)]
    for (row, column), own in zip(PHASES, phases, strict=False):
        known[:, :, row::2, column::2] = own
    expected = F.conv2d(F.pad(known, head.pads), kernel, stride=2)
    found = F.conv2d(torch.cat(phases, 1), cell_kernel(kernel, head, number), padding=1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
