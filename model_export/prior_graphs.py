"""A prior's layers -> ONNX graphs: trunk, heads and dequantiser."""

from __future__ import annotations

import functools

import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto

from model_export.dequantiser import Dequantiser, Reader
from model_export.graph_builder import Graph
from model_export.integers import ACTIVATION_BITS, BYTE_BITS
from model_export.joined_graphs import (
    bins_read,
    cell_kernel,
    condition_bytes,
    joined_input,
    joined_sum,
    planes_apart,
)
from model_export.prior import MEAN_BITS, MEAN_LIMIT, SCALES, Head, Trunk
from service.codec.prior import LUMA_PLANES, PHASES


def cells_apart(graph: Graph, x: str, like: str, width: int) -> str:
    """[N, 4 width, h, w], places of 2x2 cells one after the other -> [N, H, W, width], H and W those of `like`."""
    x = graph.add("Reshape", graph.turned(x), graph.constant([0, 0, 0, 2, 2, width]))
    x = graph.add("Transpose", x, perm=[0, 1, 3, 2, 4, 5])
    x = graph.add("Reshape", x, graph.constant([0, 0, 0, -1, width]))
    columns = graph.add(
        "Slice", graph.add("Shape", like), graph.constant([3]), graph.constant([4]), graph.constant([0])
    )
    size = graph.add("Concat", graph.constant([0, -1]), columns, graph.constant([width]), axis=0)
    return graph.add("Reshape", x, size)


def trunk_inputs(g: Graph, trunk: Trunk, condition_length: int) -> tuple[str, str, str, str, str]:
    """Declare what a trunk reads: low, parent (bytes), low_scale, edge_scale, condition."""
    low = g.input("low", ["N", 3, "H", "W"])
    parent = g.input("parent", ["N", trunk.carry.weight.shape[1], "ph", "pw"], TensorProto.UINT8)
    low_scale, edge_scale = g.input("low_scale", ["N", 1, 1, 1]), g.input("edge_scale", ["N", 3, 1, 1])
    return low, parent, low_scale, edge_scale, g.input("condition", ["N", condition_length])


def trunk_bytes(g: Graph, trunk: Trunk, low: str, parent: str, scales: tuple[str, str], condition: str) -> list[str]:
    """What every layer of a trunk gives, in order, bytes; the last are the features.

    Channels are last where layers are 8-bit operations. The first layer works on 2x2 cells, like the parent: four
    times the channels, phase by phase.
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
    apart = cells_apart(g, g.byte(g.add("Add", g.add("Add", x, carried), bias)), low, width)
    found = [apart if g.byte_kernels else g.turned_back(apart)]
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
    g.output(
        features if byte_kernels else g.turned(features), "features", ["N", "H", "W", trunk.width], TensorProto.UINT8
    )
    return g.model()


def head_graph(name: str, head: Head, number: int, condition_length: int, byte_kernels: bool) -> onnx.ModelProto:
    """What is known, condition -> said: means in 1/8 bin and scale indices of one phase, int16.

    Luma's heads read features, and all but the first of them bins of earlier passes, cell by cell, [N, h, w, 9 passes];
    chroma's read features and bins of the level joined. All of these are bytes with channels last.
    """
    g = Graph(name, BYTE_BITS, byte_kernels)
    condition = g.input("condition", ["N", condition_length])
    first = _luma_first if number < len(PHASES) else _chroma_first
    x = first(g, head, number, condition)
    if byte_kernels:
        second, width = head.second.whole(), head.second.terms[0].weight.shape[1]
        told = condition_bytes(g, condition, head.second, x, width)
        x = joined_sum(g, second, g.cat(x, told, axis=3), second.kernels, [0] * 4)
        x = g.add("Add", g.turned_back(g.product(head.last, [x])), g.bias(head.last, condition))
    else:
        x = g.widened(g.byte(g.sum(head.second, [g.widened(x)], condition)))
        x = g.sum(head.last, [x], condition)
    raw = g.add("Mul", x, g.constant(2.0**-BYTE_BITS))
    mean, index = g.split(raw, [head.bands, head.bands])
    mean = g.add("Round", g.add("Mul", g.clip(mean, -MEAN_LIMIT, MEAN_LIMIT), g.constant(2.0**MEAN_BITS)))
    index = g.add("Add", g.add("Mul", index, g.constant(4.0)), g.constant(24.0))
    index = g.add("Round", g.clip(index, 0.0, SCALES - 1.0))
    said = g.add("Cast", g.cat(mean, index), to=TensorProto.INT16)
    g.output(said, "said", ["N", 2 * head.bands, "h", "w"], TensorProto.INT16)
    return g.model()


def _of_phase(g: Graph, x: str, head: Head) -> str:
    """Bytes with channels last -> those of a head's phase."""
    return g.slice(g.slice(x, 1, head.row, step=2), 2, head.column, step=2)


def _luma_first(g: Graph, head: Head, number: int, condition: str) -> str:
    """The first layer of a luma head, bytes; bins are read cell by cell, as only those of earlier passes are known."""
    width = head.first.terms[0].weight.shape[1]
    phase = _of_phase(g, g.input("features", ["N", "H", "W", width], TensorProto.UINT8), head)
    known = g.input("known", ["N", "h", "w", LUMA_PLANES * number], TensorProto.UINT8) if number else ""
    if g.byte_kernels:
        first = head.first.whole()
        own, *others = first.kernels
        told = condition_bytes(g, condition, head.first, phase, width + LUMA_PLANES * number)
        joined = g.cat(*(part for part in (phase, known, told) if part), axis=3)
        kernels = [own, *(cell_kernel(kernel, head, number) for kernel in others)]
        return joined_sum(g, first, joined, kernels, [1 if number else 0] * 4)
    own, *others = head.first.integer_weights()
    terms = [g.add("Conv", g.widened(g.turned_back(phase)), g.kernel(own))]
    terms += [g.add("Conv", bins_read(g, known), g.kernel(cell_kernel(w, head, number)), pads=[1] * 4) for w in others]
    terms.append(g.bias(head.first, condition))
    return g.byte(functools.reduce(lambda a, b: g.add("Add", a, b), terms))


def _chroma_first(g: Graph, head: Head, number: int, condition: str) -> str:
    """The first layer of a chroma head, bytes."""
    width = head.first.terms[0].weight.shape[1]
    joined, (left, right, top, bottom) = joined_input(g, head.first), head.pads
    pads = [top, left, bottom, right]
    if g.byte_kernels:
        first = head.first.whole()
        return joined_sum(g, first, joined, first.kernels, pads, stride=2)
    features = g.turned_back(_of_phase(g, g.slice(joined, 3, 0, width), head))
    return g.byte(g.sum(head.first, [g.widened(features), planes_apart(g, joined, width)], condition, [None, pads]))


def bytes_read(g: Graph, net: Reader, seen: str, planes: str, condition: str) -> list[str]:
    """What every layer of a Reader gives, bytes and planes -> bytes; not of 8-bit operations."""
    found = [g.byte(g.sum(net.first, [g.widened(seen), planes], condition))]
    for layer in net.layers:
        found.append(g.layer(layer, found[-1]))
    return found


def _joined_read(g: Graph, net: Reader, joined: str, features: int) -> str:
    """What a Reader gives, by 8-bit operations; what it reads besides `features` features is joined before them."""
    first = net.first.whole()
    of_bytes, of_planes = first.kernels
    x = joined_sum(g, first, joined, [of_bytes[:, features:], of_bytes[:, :features], of_planes], [1] * 4)
    for layer in net.layers:
        x = g.layer(layer, x)
    return x


def dequantiser_graph(
    name: str, net: Dequantiser, condition_length: int, hands_on: bool, byte_kernels: bool
) -> onnx.ModelProto:
    """Features, bins and condition -> offsets in 1/256 bin, int16, and the finer level's parent, if there is any.

    What is read is joined, channels last; it and the parent are bytes.
    """
    g = Graph(name, BYTE_BITS, byte_kernels)
    width = net.first.terms[0].weight.shape[1]
    joined, condition = joined_input(g, net.first), g.input("condition", ["N", condition_length])
    parts = _dequantised_at_once if byte_kernels else _dequantised
    reads, parent = parts(g, net, joined, condition, width)
    if byte_kernels:
        raw = g.add("Add", g.turned_back(g.product(net.last, reads)), g.bias(net.last, condition))
    else:
        raw = g.sum(net.last, [g.widened(x) for x in reads], condition)
    raw = g.add("Mul", raw, g.constant(2.0 ** (7 - BYTE_BITS)))
    offset = g.add("Cast", g.add("Round", g.clip(raw, -127.0, 127.0)), to=TensorProto.INT16)
    g.output(offset, "offsets", ["N", 9, "H", "W"], TensorProto.INT16)
    if hands_on:
        width += 0 if net.join is None else len(net.join.bias)
        g.output(parent, "handed_on", ["N", width, "H", "W"], TensorProto.UINT8)
    return g.model()


def _dequantised(g: Graph, net: Dequantiser, joined: str, condition: str, width: int) -> tuple[list[str], str]:
    """What a dequantiser's last layer reads, and the parent, bytes."""
    features, planes = g.turned_back(g.slice(joined, 3, 0, width)), planes_apart(g, joined, width)
    parent, reads = features, []
    if net.join is not None:
        reads.append(g.layer(net.join, g.cat(features, bytes_read(g, net, features, planes, condition)[-1])))
        parent = g.cat(features, reads[-1])
    if net.refiner is not None:
        reads.append(bytes_read(g, net.refiner, parent, planes, condition)[-1])
    return reads, parent


def _dequantised_at_once(g: Graph, net: Dequantiser, joined: str, condition: str, width: int) -> tuple[list[str], str]:
    """As `_dequantised`, by 8-bit operations; what the last layer reads has its channels last."""
    features = g.slice(joined, 3, 0, width)
    parent, reads = features, []
    if net.join is not None:
        reads.append(g.layer(net.join, g.cat(features, _joined_read(g, net, joined, width), axis=3)))
        parent = g.cat(features, reads[-1], axis=3)
        joined = g.cat(reads[-1], joined, axis=3)
    if net.refiner is not None:
        reads.append(_joined_read(g, net.refiner, joined, width))
    return reads, g.turned_back(parent)
