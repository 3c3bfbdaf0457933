"""Torch layers -> ONNX graphs: those of the flow, of each prior, and of the encoder's feedback."""

from __future__ import annotations

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor

from model_export.flow import colour
from model_export.flow.coupling import CHROMA, LUMA, OUTPUT_BITS, OUTPUT_LIMIT, Coupling, CouplingNet
from model_export.flow.multilevel import MultilevelFlow
from model_export.graph_builder import Graph
from model_export.integers import ACTIVATION_BITS, BYTE_BITS
from model_export.model import CodecModel
from model_export.prior import (
    MEAN_BITS,
    MEAN_LIMIT,
    SCALES,
    Dequantiser,
    Head,
    Reader,
    Trunk,
)
from model_export.quantiser import FEEDBACK_SIDE, KNOTS
from service.codec import kernels
from service.codec.artifact import BYTE_SUFFIX, BYTE_TRIAL, PRIOR_GRAPHS, PRIORS, graph_of_level
from service.codec.prior import LUMA_PLANES, PLANES_READ

GraphTap = tuple[str, str, str | None]
"""Coarse and fine fraction of a tap and its whole part, if it has one."""


def lifting_steps(graph: Graph, low: str, high: str, axis: int, taps: list[GraphTap], sign: str) -> tuple[str, str]:
    """The four lifting steps in order (sign Add) or undone in reverse (sign Sub)."""
    order = range(4) if sign == "Add" else reversed(range(4))
    for step in order:
        to_high = step % 2 == 0
        source = low if to_high else high
        if to_high:
            other = graph.cat(graph.slice(source, axis, 1), graph.slice(source, axis, -1), axis=axis)
        else:
            other = graph.cat(graph.slice(source, axis, 0, 1), graph.slice(source, axis, 0, -1), axis=axis)
        neighbours = graph.add("Add", source, other)
        coarse, fine, whole = taps[step]
        products = [graph.add("Round", graph.add("Mul", neighbours, fraction)) for fraction in (coarse, fine)]
        addition = graph.add("Add", *products)
        if whole is not None:
            addition = graph.add("Add", addition, graph.add("Mul", neighbours, whole))
        if to_high:
            high = graph.add(sign, high, addition)
        else:
            low = graph.add(sign, low, addition)
    return low, high


def interleave(graph: Graph, low: str, high: str, axis: int) -> str:
    """Even and odd samples back in their places."""
    pair = graph.add(
        "Concat", *(graph.add("Unsqueeze", x, graph.constant([axis + 1])) for x in (low, high)), axis=axis + 1
    )
    shape = [0, 0, 0, -1] if axis == 3 else [0, 0, -1, 0]
    if axis == 3:
        return graph.add("Reshape", pair, graph.constant(shape))
    # [N, C, H, 2, W]: copy N and C, join H with 2, keep W; the last size is taken from the operand's own shape.
    sizes = graph.add("Shape", low)
    width = graph.add("Slice", sizes, graph.constant([3]), graph.constant([4]), graph.constant([0]))
    return graph.add("Reshape", pair, graph.add("Concat", graph.constant([0, 0, -1]), width, axis=0))


def cells_apart(graph: Graph, x: str, like: str, width: int) -> str:
    """[N, 4 width, h, w], places of 2x2 cells one after the other -> [N, width, H, W], H and W those of `like`."""
    x = graph.add("Reshape", graph.turned(x), graph.constant([0, 0, 0, 2, 2, width]))
    x = graph.add("Transpose", x, perm=[0, 1, 3, 2, 4, 5])
    x = graph.add("Reshape", x, graph.constant([0, 0, 0, -1, width]))
    columns = graph.add(
        "Slice", graph.add("Shape", like), graph.constant([3]), graph.constant([4]), graph.constant([0])
    )
    size = graph.add("Concat", graph.constant([0, -1]), columns, graph.constant([width]), axis=0)
    return graph.turned_back(graph.add("Reshape", x, size))


class FlowGraph(Graph):
    """What the forward and the inverse graph share: conditions, colour, coupling nets."""

    def __init__(self, name: str, flow: MultilevelFlow) -> None:
        super().__init__(name)
        self.flow = flow

    def prepare(self) -> None:
        """Declare rung and unit, and derive gate, lean, scale, gain and taps."""
        self.rung = self.input("rung", ["N", self.flow.rungs])
        unit = self.input("unit", ["N", 2])
        forwards, backwards = self.split(unit, [1, 1])
        chosen = self.add("MatMul", self.rung, self.constant(self.flow.scales.double()))
        scale, gain = self.split(chosen, [1, 1])
        units = 2.0**ACTIVATION_BITS
        self.scale = self.planes(self.add("Mul", self.add("Mul", scale, backwards), self.constant(units)))
        self.double_scale = self.add("Mul", self.scale, self.constant(2.0))
        self.gain = self.planes(self.add("Mul", gain, forwards))
        finest = (self.slice(self.rung, 1, row, row + 1) for row in range(0, self.flow.rungs, self.flow.levels))
        self.gate = self.planes(self.add("Add", *finest))
        self.lean = self.planes(self.add("Mul", self.slice(self.rung, 1, 0, 1), self.constant(colour.LEAN)))
        coarse, fine = self.flow.wavelet.tables()
        if fine is None:
            raise ValueError("graphs are made of models in exact mode; call set_exact(True) first")
        self.taps = [[self.tap(coarse, fine, axis, step) for step in range(4)] for axis in range(2)]

    def tap(self, coarse: Tensor, fine: Tensor, axis: int, step: int) -> GraphTap:
        """Parts of one lifting step's tap, chosen by rung: fractions [N, 3, 1, 1], whole [N, 1, 1, 1]."""
        parts = (torch.cat([t[:, axis, step, :1], *[t[:, axis, step, 1:]] * 2], 1) for t in (coarse, fine))
        first, second = (self.chosen(part) for part in parts)
        wavelet = self.flow.wavelet
        return first, second, self.chosen(wavelet.whole[:, 0, step]) if wavelet.has_whole(step) else None

    def chosen(self, table: Tensor) -> str:
        """Row of a table [rungs, C] chosen by rung: [N, C, 1, 1]."""
        return self.planes(self.add("MatMul", self.rung, self.constant(table)))

    def net(self, net: CouplingNet, x: str) -> str:
        """A coupling net's output in lattice units, rounded."""
        hidden = self.activation(self.sum(net.first, [x], self.rung))
        raw = self.sum(net.last, [hidden], self.rung)
        value = self.clip(
            self.add("Mul", raw, self.constant(16.0 * 2.0**-ACTIVATION_BITS)), -OUTPUT_LIMIT, OUTPUT_LIMIT
        )
        return self.add("Round", self.add("Mul", self.grid(value, OUTPUT_BITS), self.gain))

    def chroma_step(self, coupling: Coupling, low: str, details: str, sign: str) -> str:
        """Chroma details less, or plus, what luma details and low-pass foretell."""
        luma, chroma = (
            self.add("Gather", details, self.constant(LUMA), axis=1),
            self.add("Gather", details, self.constant(CHROMA), axis=1),
        )
        known = self.cat(self.read(luma, self.double_scale), self.read(low, self.scale))
        chroma = self.add(sign, chroma, self.net(coupling.chroma, known))
        lumas, chromas = self.split(luma, [1] * 3), self.split(chroma, [2] * 3)
        return self.cat(*(part for pair in zip(lumas, chromas, strict=True) for part in pair))

    def half(self, x: str) -> str:
        """floor(gate * x / 2)."""
        return self.add("Floor", self.add("Mul", self.add("Mul", self.gate, x), self.constant(0.5)))

    def leaning(self, cg: str) -> str:
        """floor(lean * cg)."""
        return self.add("Floor", self.add("Mul", self.lean, cg))


def forward_graph(flow: MultilevelFlow) -> onnx.ModelProto:
    """One level of the forward flow: planes, rung, unit -> low, details."""
    g = FlowGraph("forward", flow)
    x = g.input("planes", ["N", 3, "H", "W"])
    g.prepare()
    b, green, r = g.split(x, [1, 1, 1])
    co = g.add("Sub", r, g.add("Mul", g.gate, b))
    t = g.add("Add", b, g.half(co))
    cg = g.add("Sub", green, g.add("Mul", g.gate, t))
    x = g.cat(g.add("Sub", g.add("Add", t, g.half(cg)), g.leaning(cg)), cg, co)
    rows, columns = g.taps
    low, high = lifting_steps(g, g.slice(x, 2, 0, step=2), g.slice(x, 2, 1, step=2), 2, rows, "Add")
    ll, lh = lifting_steps(g, g.slice(low, 3, 0, step=2), g.slice(low, 3, 1, step=2), 3, columns, "Add")
    hl, hh = lifting_steps(g, g.slice(high, 3, 0, step=2), g.slice(high, 3, 1, step=2), 3, columns, "Add")
    coupling = flow.coupling
    details = g.add("Sub", g.cat(lh, hl, hh), g.net(coupling.predict, g.read(ll, g.scale)))
    ll = g.add("Add", ll, g.net(coupling.update, g.read(details, g.double_scale)))
    details = g.chroma_step(coupling, ll, details, "Sub")
    g.output(ll, "low", ["N", 3, "h", "w"])
    g.output(details, "details", ["N", 9, "h", "w"])
    return g.model()


def inverse_graph(flow: MultilevelFlow) -> onnx.ModelProto:
    """One level of the inverse flow: low, details, rung, unit -> planes."""
    g = FlowGraph("inverse", flow)
    low, details = g.input("low", ["N", 3, "h", "w"]), g.input("details", ["N", 9, "h", "w"])
    g.prepare()
    coupling = flow.coupling
    details = g.chroma_step(coupling, low, details, "Add")
    ll = g.add("Sub", low, g.net(coupling.update, g.read(details, g.double_scale)))
    details = g.add("Add", details, g.net(coupling.predict, g.read(ll, g.scale)))
    rows, columns = g.taps
    lh, hl, hh = g.split(details, [3, 3, 3])
    low = interleave(g, *lifting_steps(g, ll, lh, 3, columns, "Sub"), 3)
    high = interleave(g, *lifting_steps(g, hl, hh, 3, columns, "Sub"), 3)
    y, cg, co = g.split(interleave(g, *lifting_steps(g, low, high, 2, rows, "Sub"), 2), [1, 1, 1])
    t = g.add("Sub", g.add("Add", y, g.leaning(cg)), g.half(cg))
    b = g.add("Sub", t, g.half(co))
    green = g.add("Add", cg, g.add("Mul", g.gate, t))
    red = g.add("Add", co, g.add("Mul", g.gate, b))
    g.output(g.cat(b, green, red), "planes", ["N", 3, "H", "W"])
    return g.model()


def trunk_graph(name: str, trunk: Trunk, condition_length: int, byte_kernels: bool) -> onnx.ModelProto:
    """low, parent, low_scale, edge_scale, condition -> features; parent and features are bytes.

    The first layer works on 2x2 cells, like the parent: four times the channels, phase by phase. Features have their
    channels last, so that cells come apart, and phases out of it, in runs of memory.
    """
    g = Graph(name, BYTE_BITS, byte_kernels)
    width, handed_on = trunk.first.terms[0].weight.shape[0], trunk.carry.weight.shape[1]
    low = g.input("low", ["N", 3, "H", "W"])
    parent = g.input("parent", ["N", handed_on, "ph", "pw"], TensorProto.UINT8)
    low_scale, edge_scale = g.input("low_scale", ["N", 1, 1, 1]), g.input("edge_scale", ["N", 3, 1, 1])
    condition = g.input("condition", ["N", condition_length])
    padded = g.add("Pad", low, g.constant([0, 0, 2, 2, 0, 0, 2, 2]), mode="edge")
    smooth = g.add("Conv", padded, g.constant(trunk.smoothing), group=3)
    edges = g.add("Round", g.add("Sub", low, smooth))
    units = g.constant(2.0**ACTIVATION_BITS)
    both = g.cat(g.read(low, g.add("Mul", low_scale, units)), g.read(edges, g.add("Mul", edge_scale, units)))
    weight, carry = trunk.integer_weights()
    first = trunk.first.terms[0]
    places = [F.pad(weight, (column, 1 - column, row, 1 - row)) for row in (0, 1) for column in (0, 1)]
    kernel = g.kernel(torch.cat(places) * 2.0 ** (g.bits - first.bits))
    x = g.add("Conv", both, kernel, strides=[2, 2], pads=[1] * 4)
    cells = g.add("Slice", g.add("Shape", x), g.constant([2]), g.constant([4]), g.constant([0]))
    parent = g.widened(g.add("Slice", parent, g.constant([0, 0]), cells, g.constant([2, 3])))
    bias = g.add("Concat", *[g.table(trunk.first.table, condition)] * 4, axis=1)
    # Channel c * 4 + k of the carried ones belongs to place k of the cell, as in pixel_shuffle; here k comes first.
    carried = g.conv(trunk.carry, carry.unflatten(0, (width, 4)).transpose(0, 1).flatten(0, 1), parent)
    x = cells_apart(g, g.byte(g.add("Add", g.add("Add", x, carried), bias)), low, width)
    for layer in trunk.layers:
        x = g.layer(layer, x)
    g.output(g.turned(x), "features", ["N", "H", "W", width], TensorProto.UINT8)
    return g.model()


def head_graph(name: str, head: Head, condition_length: int) -> onnx.ModelProto:
    """features (bytes), known planes, condition -> said: means in 1/8 bin and scale indices of one phase, int16."""
    g = Graph(name, BYTE_BITS)
    width = head.first.terms[0].weight.shape[1]
    features = g.input("features", ["N", "H", "W", width], TensorProto.UINT8)
    phase = g.slice(g.slice(features, 1, head.row, step=2), 2, head.column, step=2)
    inputs = [g.widened(g.turned_back(phase))]
    pads: list[list[int] | None] = [None]
    if len(head.first.terms) > 1:
        left, right, top, bottom = head.pads
        all_read = head.first.terms[1].weight.shape[1] > LUMA_PLANES
        planes = (
            g.input("planes", ["N", PLANES_READ, "H", "W"])
            if all_read
            else g.input("luma", ["N", LUMA_PLANES, "H", "W"])
        )
        inputs.append(planes)
        pads.append([top, left, bottom, right])
    condition = g.input("condition", ["N", condition_length])
    x = g.widened(g.byte(g.sum(head.first, inputs, condition, pads)))
    x = g.widened(g.byte(g.sum(head.second, [x], condition)))
    raw = g.add("Mul", g.sum(head.last, [x], condition), g.constant(2.0**-BYTE_BITS))
    mean, index = g.split(raw, [head.bands, head.bands])
    mean = g.add("Round", g.add("Mul", g.clip(mean, -MEAN_LIMIT, MEAN_LIMIT), g.constant(2.0**MEAN_BITS)))
    index = g.add("Add", g.add("Mul", index, g.constant(4.0)), g.constant(24.0))
    index = g.add("Round", g.clip(index, 0.0, SCALES - 1.0))
    said = g.add("Cast", g.cat(mean, index), to=TensorProto.INT16)
    g.output(said, "said", ["N", 2 * head.bands, "h", "w"], TensorProto.INT16)
    return g.model()


def bytes_read(g: Graph, net: Reader, seen: str, planes: str, condition: str) -> str:
    """A Reader: bytes and planes -> bytes."""
    x = g.byte(g.sum(net.first, [g.widened(seen), planes], condition))
    for layer in net.layers:
        x = g.layer(layer, x)
    return x


def dequantiser_graph(
    name: str, net: Dequantiser, condition_length: int, hands_on: bool, byte_kernels: bool
) -> onnx.ModelProto:
    """features, planes, condition -> offsets in 1/256 bin, int16, and, if there is one, the finer level's parent.

    Features, channels last, and parent are bytes.
    """
    g = Graph(name, BYTE_BITS, byte_kernels)
    width = net.first.terms[0].weight.shape[1]
    features = g.turned_back(g.input("features", ["N", "H", "W", width], TensorProto.UINT8))
    planes = g.input("planes", ["N", PLANES_READ, "H", "W"])
    condition = g.input("condition", ["N", condition_length])
    joined = g.layer(net.join, g.cat(features, bytes_read(g, net, features, planes, condition)))
    parent, reads = g.cat(features, joined), [joined]
    if net.refiner is not None:
        reads.append(bytes_read(g, net.refiner, parent, planes, condition))
    raw = g.add("Mul", g.sum(net.last, [g.widened(x) for x in reads], condition), g.constant(2.0 ** (7 - BYTE_BITS)))
    offset = g.add("Cast", g.add("Round", g.clip(raw, -127.0, 127.0)), to=TensorProto.INT16)
    g.output(offset, "offsets", ["N", 9, "H", "W"], TensorProto.INT16)
    if hands_on:
        g.output(parent, "handed_on", ["N", 2 * width, "H", "W"], TensorProto.UINT8)
    return g.model()


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


def byte_trial() -> onnx.ModelProto:
    """A layer of bytes whose products of neighbours overflow 16 bits: x -> y; see service.codec.kernels."""
    g = Graph(BYTE_TRIAL)
    x = g.input("x", ["N", kernels.CHANNELS, "H", "W"], TensorProto.UINT8)
    scale = np.full(kernels.CHANNELS, 2.0**-kernels.SHIFT)
    y = g.byte_conv(x, kernels.weights(), scale, kernels.biases(), 0)
    g.output(y, "y", ["N", kernels.CHANNELS, "h", "w"], TensorProto.UINT8)
    return g.model()


def graphs_of(model: CodecModel) -> dict[str, onnx.ModelProto]:
    """All graphs of a model in exact mode, by name."""
    length = model.config.levels * KNOTS
    graphs = {"forward": forward_graph(model.flow), "inverse": inverse_graph(model.flow)}
    graphs |= {"feedback": feedback_graph(), BYTE_TRIAL: byte_trial()}
    for level in range(len(PRIORS)):
        prior = model.prior(level)
        trunk, *heads, dequantiser = (graph_of_level(name, level) for name in PRIOR_GRAPHS)
        graphs |= {name: head_graph(name, head, length) for name, head in zip(heads, prior.heads, strict=True)}
        for suffix in ("", BYTE_SUFFIX):
            byte = suffix == BYTE_SUFFIX
            graphs[trunk + suffix] = trunk_graph(trunk, prior.trunk, length, byte)
            graphs[dequantiser + suffix] = dequantiser_graph(dequantiser, prior.dequantiser, length, level > 0, byte)
    return graphs
