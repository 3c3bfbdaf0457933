"""graph_builder: kernels travel as whole numbers, products of bytes are exact, and what no output needs is left out."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto

from model_export.graph_builder import Graph
from model_export.integers import BYTE_BITS, ConditionTable, ExactConv, ExactSum
from model_export.onnx_graphs import byte_trial
from service.codec.kernels import adds_up


def opened(weight):
    graph = Graph("kernel")
    graph.output(graph.kernel(weight), "kernel", list(weight.shape))
    (kernel,) = ort.InferenceSession(graph.model().SerializeToString()).run(None, {})
    return graph, kernel


@pytest.mark.parametrize(("limit", "kind"), [(127, np.int8), (128, np.int16), (32767, np.int16)])
def test_a_dyadic_kernel_is_kept_in_few_bytes_and_comes_back_as_it_was(limit, kind):
    rng = np.random.default_rng(0)
    whole = rng.integers(-limit, limit + 1, (5, 4, 3, 3))
    whole[:, 0, 0, 0] = limit, 1, -limit, limit, 3
    whole[3, 1:] *= rng.integers(0, 2, (3, 3, 3))
    units = 2.0 ** np.array([3, 0, -7, -20, -40]).reshape(-1, 1, 1, 1)
    graph, kernel = opened(torch.from_numpy(whole * units).float())
    assert np.array_equal(kernel, (whole * units).astype(np.float32))
    assert next(tensor.data_type for tensor in graph.initializers) == {np.int8: 3, np.int16: 5}[kind]


def test_channels_of_nothing_are_kept_too():
    _, kernel = opened(torch.zeros(2, 3, 1, 1))
    assert np.array_equal(kernel, np.zeros((2, 3, 1, 1)))


@pytest.mark.parametrize("value", [1 / 3, 40001.0])
def test_a_kernel_that_needs_more_bits_is_refused(value):
    with pytest.raises(ValueError, match="set_exact"):
        Graph("kernel").kernel(torch.full((2, 2, 1, 1), value))


def has_byte_kernels():
    return adds_up(ort.InferenceSession(byte_trial().SerializeToString()))


@pytest.mark.parametrize("size", [0.02, 30.0])
@pytest.mark.parametrize("places", [(1, 1), (5, 7)])
def test_products_of_bytes_are_what_convolutions_give(size, places):
    if not has_byte_kernels():
        pytest.skip("this processor has no exact 8-bit kernels")
    torch.manual_seed(3)
    layer = ExactSum([ExactConv(c, 6, 1, bits=BYTE_BITS) for c in (40, 24)], ConditionTable(1, 2, 6))
    with torch.no_grad():
        for conv in layer.terms:
            conv.weight.mul_(size)
            conv.weight[2] = 0
        layer.terms[0].weight[:, 7] *= 100
    layer.set_exact(True)
    g = Graph("product", BYTE_BITS, byte_kernels=True)
    x = g.input("x", ["N", "H", "W", 64], TensorProto.UINT8)
    parts = [g.slice(x, 3, 0, 40), g.slice(x, 3, 40)]
    g.output(g.product(layer, parts), "y", ["N", "H", "W", 6])
    given = np.random.default_rng(4).choice([0, 3, 254, 255], (2, *places, 64)).astype(np.uint8)
    (found,) = ort.InferenceSession(g.model().SerializeToString()).run(None, {"x": given})
    kernel = torch.cat(layer.integer_weights(), 1)[:, :, 0, 0].detach().double()
    assert kernel.abs().max() > 0.4 * size
    assert np.array_equal(found, (torch.from_numpy(given).double() @ kernel.T).numpy())


def test_what_no_output_needs_is_left_out():
    g = Graph("few")
    x = g.input("x", [2])
    g.add("Add", g.add("Mul", x, g.constant(3.0)), g.constant(5.0))
    g.output(g.add("Sub", x, g.constant(7.0)), "y", [2])
    model = g.model()
    assert [node.op_type for node in model.graph.node] == ["Sub", "Identity"]
    assert len(model.graph.initializer) == 1
