"""A prior's layers -> ONNX graphs: trunk, heads and dequantiser."""

from __future__ import annotations

import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto

from model_export.dequantiser import Dequantiser, Reader
from model_export.graph_builder import Graph
from model_export.integers import ACTIVATION_BITS, BYTE_BITS
from model_export.prior import MEAN_BITS, MEAN_LIMIT, SCALES, Head, Trunk
from service.codec.prior import LUMA_PLANES, PLANES_READ


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


def trunk_inputs(g: Graph, trunk: Trunk, condition_length: int) -> tuple[str, str, str, str, str]:
    """Declare what a trunk reads: low, parent (bytes), low_scale, edge_scale, condition."""
    low = g.input("low", ["N", 3, "H", "W"])
    parent = g.input("parent", ["N", trunk.carry.weight.shape[1], "ph", "pw"], TensorProto.UINT8)
    low_scale, edge_scale = g.input("low_scale", ["N", 1, 1, 1]), g.input("edge_scale", ["N", 3, 1, 1])
    return low, parent, low_scale, edge_scale, g.input("condition", ["N", condition_length])


def trunk_bytes(g: Graph, trunk: Trunk, low: str, parent: str, scales: tuple[str, str], condition: str) -> list[str]:
    """What every layer of a trunk gives, in order, bytes; the last are the features.

    The first layer works on 2x2 cells, like the parent: four times the channels, phase by phase.
    """
    width = trunk.first.terms[0].weight.shape[0]
    padded = g.add("Pad", low, g.constant([0, 0, 2, 2, 0, 0, 2, 2]), mode="edge")
    smooth = g.add("Conv", padded, g.constant(trunk.smoothing), group=3)
    edges = g.add("Round", g.add("Sub", low, smooth))
    units = g.constant(2.0**ACTIVATION_BITS)
    both = g.cat(*(g.read(x, g.add("Mul", scale, units)) for x, scale in zip((low, edges), scales, strict=True)))
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
    found = [cells_apart(g, g.byte(g.add("Add", g.add("Add", x, carried), bias)), low, width)]
    for layer in trunk.layers:
        found.append(g.layer(layer, found[-1]))
    return found


def trunk_graph(name: str, trunk: Trunk, condition_length: int, byte_kernels: bool) -> onnx.ModelProto:
    """low, parent, low_scale, edge_scale, condition -> features; parent and features are bytes.

    Features have their channels last, so that cells come apart, and phases out of it, in runs of memory.
    """
    g = Graph(name, BYTE_BITS, byte_kernels)
    low, parent, low_scale, edge_scale, condition = trunk_inputs(g, trunk, condition_length)
    features = trunk_bytes(g, trunk, low, parent, (low_scale, edge_scale), condition)[-1]
    g.output(g.turned(features), "features", ["N", "H", "W", trunk.width], TensorProto.UINT8)
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


def bytes_read(g: Graph, net: Reader, seen: str, planes: str, condition: str) -> list[str]:
    """What every layer of a Reader gives, bytes and planes -> bytes."""
    found = [g.byte(g.sum(net.first, [g.widened(seen), planes], condition))]
    for layer in net.layers:
        found.append(g.layer(layer, found[-1]))
    return found


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
    parent, reads = features, []
    if net.join is not None:
        joined = g.layer(net.join, g.cat(features, bytes_read(g, net, features, planes, condition)[-1]))
        reads.append(joined)
        parent = g.cat(features, joined) if hands_on or net.refiner else ""
        width += len(net.join.bias)
    if net.refiner is not None:
        reads.append(bytes_read(g, net.refiner, parent, planes, condition)[-1])
    raw = g.add("Mul", g.sum(net.last, [g.widened(x) for x in reads], condition), g.constant(2.0 ** (7 - BYTE_BITS)))
    offset = g.add("Cast", g.add("Round", g.clip(raw, -127.0, 127.0)), to=TensorProto.INT16)
    g.output(offset, "offsets", ["N", 9, "H", "W"], TensorProto.INT16)
    if hands_on:
        g.output(parent, "handed_on", ["N", width, "H", "W"], TensorProto.UINT8)
    return g.model()
