"""A model -> all its ONNX graphs; here also those of the encoder's feedback and of the trial of 8-bit kernels."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from model_export.adjoint_graphs import adjoint_graph
from model_export.flow_graphs import forward_graph, inverse_graph
from model_export.graph_builder import Graph
from model_export.model import CodecModel
from model_export.prior_graphs import dequantiser_graph, head_graph, trunk_graph
from model_export.quantiser import FEEDBACK_SIDE, KNOTS
from service.codec import kernels
from service.codec.adjoint import SYNTHESIS_SIDE
from service.codec.artifact import BYTE_SUFFIX, BYTE_TRIAL, PRIOR_GRAPHS, PRIORS, graph_of_level


def feedback_graph() -> onnx.ModelProto:
    """errors of LH, HL, HH, padded, and a whole-numbered kernel -> moved: their sums at every other place."""
    g = Graph("feedback")
    errors, kernel = (
        g.input("errors", ["N", 3, "H", "W"]),
        g.input("kernel", [3, 3, FEEDBACK_SIDE, FEEDBACK_SIDE]),
    )
    moved = g.add("Conv", errors, kernel, kernel_shape=[FEEDBACK_SIDE] * 2, strides=[2, 2])
    g.output(moved, "moved", ["N", 3, "h", "w"])
    return g.model()


def synthesis_back_graph() -> onnx.ModelProto:
    """A state of one colour, padded, and a whole-numbered kernel of four bands -> bands: sums at every other place."""
    g = Graph("synthesis_back")
    side = SYNTHESIS_SIDE
    state, kernel = g.input("state", ["N", 1, "H", "W"]), g.input("kernel", [4, 1, side, side])
    g.output(g.add("Conv", state, kernel, kernel_shape=[side] * 2, strides=[2, 2]), "bands", ["N", 4, "h", "w"])
    return g.model()


def byte_trial() -> onnx.ModelProto:
    """Sums of bytes whose products of neighbours overflow 16 bits: x -> y, z; see service.codec.kernels."""
    g = Graph(BYTE_TRIAL)
    x = g.input("x", ["N", kernels.CHANNELS, "H", "W"], TensorProto.UINT8)
    shifts = np.full(kernels.CHANNELS, kernels.SHIFT)
    y = g.byte_conv(g.turned(x), kernels.weights(), kernels.biases(), shifts, [0] * 4)
    g.output(g.turned_back(y), "y", ["N", kernels.CHANNELS, "h", "w"], TensorProto.UINT8)
    inner = g.slice(g.slice(x, 2, 1, -1), 3, 1, -1)
    z = g.add("MatMulInteger", g.turned(inner), g.constant(kernels.weights()[:, :, 1, 1].T, np.int8))
    g.output(g.turned_back(z), "z", ["N", kernels.CHANNELS, "h", "w"], TensorProto.INT32)
    return g.model()


def graphs_of(model: CodecModel) -> dict[str, onnx.ModelProto]:
    """All graphs of a model in exact mode, by name."""
    length = model.config.levels * KNOTS
    graphs = {"forward": forward_graph(model.flow), "inverse": inverse_graph(model.flow)}
    graphs |= {"feedback": feedback_graph(), "synthesis_back": synthesis_back_graph(), BYTE_TRIAL: byte_trial()}
    for level in range(len(PRIORS)):
        prior = model.prior(level)
        trunk, *heads, dequantiser, adjoint = (graph_of_level(name, level) for name in PRIOR_GRAPHS)
        graphs[adjoint] = adjoint_graph(adjoint, prior, length, level > 0)
        for suffix in ("", BYTE_SUFFIX):
            byte = suffix == BYTE_SUFFIX
            graphs[trunk + suffix] = trunk_graph(trunk, prior.trunk, length, byte)
            for number, (name, head) in enumerate(zip(heads, prior.heads, strict=True)):
                graphs[name + suffix] = head_graph(name, head, number, length, byte)
            graphs[dequantiser + suffix] = dequantiser_graph(dequantiser, prior.dequantiser, length, level > 0, byte)
    return graphs
