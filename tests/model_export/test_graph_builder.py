"""graph_builder: kernels travel as whole numbers and are what they were when a session opens them."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch

from model_export.graph_builder import Graph


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
