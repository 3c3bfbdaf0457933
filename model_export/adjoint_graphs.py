"""A prior's layers -> the graph of its adjoint: what bins and points of a level cost -> what made them so.

The derivative of rate and distortion, taken backwards through heads, dequantiser and trunk, in exact integers. Every
layer is computed once more, for it is known only then where its activations were cut off; kernels, transposed, and
derivatives have 8 bits, in units of fixed powers of two. A derivative need not be precise, but it must be the same
everywhere: what an encoder does with it shows in its streams.

Only activations of bytes count as cut off; clipping elsewhere, rounding and borders count as nothing.
"""

from __future__ import annotations

import functools

import numpy as np
import onnx
import torch
from torch import Tensor

from model_export.dequantiser import Dequantiser, Reader
from model_export.graph_builder import Graph
from model_export.integers import (
    ACCUMULATOR_LIMIT,
    BYTE_BITS,
    BYTE_LIMIT,
    BYTE_WEIGHT_LIMIT,
    SUM_MARGIN,
    ByteLayer,
)
from model_export.prior import Head, Prior, Trunk
from model_export.prior_graphs import bytes_read, cells_apart, trunk_bytes, trunk_inputs
from service.codec.adjoint import LIMIT, OFFSET_BITS, PLANE_BITS, READ_BITS, SAID_BITS
from service.codec.prior import LUMA_PLANES, PHASES, PLANES, PLANES_READ

HEAD_BITS, FEATURE_BITS, HIDDEN_BITS = 4, 4, 6
"""Derivatives by activations of heads, by features and by those of all other layers are in 1/2**bits bit."""
CELL = sorted(PHASES)
"""Places of a 2x2 cell, row by row."""


class AdjointGraph(Graph):
    """A Graph whose values are activations on the way there and derivatives on the way back.

    Layers are written as convolutions between numbers that were bytes and become bytes again. A runtime makes 8-bit
    kernels of that, or float ones, as it is told; the integers are the same.
    """

    def bytes_of(self, x: str, zero: int) -> str:
        """Whole numbers -> bytes -> the same numbers, rounded half to even and clipped to -zero ... 255 - zero."""
        scale, offset = self.constant(1.0), self.constant(float(zero), np.uint8)
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, scale, offset), scale, offset)

    def taken_apart(self, kernel: Tensor) -> str:
        """A kernel as whole numbers of 8 bits, times a power of two of each output channel's own."""
        largest = kernel.abs().flatten(1).amax(1)
        scale = torch.where(largest > 0, torch.exp2(torch.ceil(torch.log2(largest.clamp_min(2.0**-60) / 127))), 1.0)
        whole = kernel / scale.view(-1, 1, 1, 1)
        if not torch.equal(whole, whole.round()):
            raise ValueError("a kernel has more than 8 bits")
        none = self.constant(0 * scale, np.int8)
        return self.add("DequantizeLinear", self.constant(whole, np.int8), self.constant(scale), none, axis=0)

    def layer(self, layer: ByteLayer, x: str) -> str:
        """A ByteLayer: bytes -> bytes."""
        weight, bias = layer.integer_parts()
        exponents = layer.shifts()
        kernel = (weight.double() * torch.exp2(exponents).view(-1, 1, 1, 1)).round().detach()
        scale = torch.exp2(-exponents)
        none = self.constant(0 * scale, np.int8)
        read = self.add("DequantizeLinear", x, self.constant(1.0), self.constant(0.0, np.uint8))
        whole = self.add("DequantizeLinear", self.constant(kernel, np.int8), self.constant(scale), none, axis=0)
        added = self.constant(bias.double() * 2.0**BYTE_BITS / scale, np.int32)
        offset = self.add("DequantizeLinear", added, self.constant(scale), self.constant(0 * scale, np.int32), axis=0)
        side = layer.conv.kernel // 2
        return self.byte(self.add("Conv", read, whole, offset, pads=[side] * 4))

    def back(self, weight: Tensor, x: str, given: int, wanted: int, **attributes: object) -> str:
        """A convolution of derivatives in 1/2**given, with a kernel that is rounded first -> in 1/2**wanted, clipped.

        Attributes of the node are padding on all sides alike unless they say something else.
        """
        side = weight.shape[2] // 2
        kernel = self.taken_apart(rounded(weight.detach().double() * 2.0 ** (wanted - given)))
        own = {"pads": [side] * 4} | attributes
        return self.bytes_of(self.add("Conv", self.bytes_of(x, 128), kernel, **own), 128)

    def where(self, x: str, activation: str) -> str:
        """Derivatives by activations, bytes -> by what they were before they were cut off."""
        one, top = self.constant(1.0, np.uint8), self.constant(float(BYTE_LIMIT), np.uint8)
        above = self.widened(self.add("Clip", activation, self.constant(0.0, np.uint8), one))
        inside = self.add("Clip", activation, self.constant(float(BYTE_LIMIT - 1), np.uint8), top)
        below = self.add("Sub", self.constant(float(BYTE_LIMIT)), self.widened(inside))
        return self.add("Mul", self.add("Mul", x, above), below)

    def total(self, *parts: str) -> str:
        """A sum; whoever reads it clips it."""
        return functools.reduce(lambda a, b: self.add("Add", a, b), parts)

    def finer(self, x: str, given: int, wanted: int) -> str:
        """Derivatives in 1/2**given -> in 1/2**wanted."""
        return x if given == wanted else self.add("Mul", x, self.constant(2.0 ** (wanted - given)))

    def layers_back(self, kernels: list[Tensor], activations: list[str], x: str, bits: int) -> str:
        """Back through layers, from what the last one gave to the activations before the first.

        Args:
            kernels: Of each layer.
            activations: Before each layer.
            x: Derivatives by what the last one gave before it was cut off, in 1/2**bits bit, as is the result.
            bits: See x.
        """
        for kernel, before in zip(reversed(kernels), reversed(activations), strict=True):
            x = self.where(self.back(transposed(kernel), x, bits, bits), before)
        return x


def transposed(weight: Tensor) -> Tensor:
    """The kernel of the adjoint of a convolution of stride 1."""
    return weight.transpose(0, 1).flip(2, 3)


def rounded(weight: Tensor) -> Tensor:
    """A kernel to weights of 8 bits, in a power of two of each output channel's own; floats hold its sums exactly."""
    flat = weight.abs().flatten(1).clamp_min(2.0**-20)
    least = torch.minimum(BYTE_WEIGHT_LIMIT / flat.amax(1), SUM_MARGIN * ACCUMULATOR_LIMIT / (LIMIT + 1) / flat.sum(1))
    scale = torch.exp2(torch.floor(torch.log2(least))).view(-1, 1, 1, 1)
    return torch.round(weight * scale) / scale


def phases_back(weight: Tensor, row: int, column: int, before: int) -> Tensor:
    """The adjoint of a convolution of stride 2 as one of stride 1: [out, in, K, K] -> [4 in, out, 3, 3].

    Output channels are place by place of the 2x2 cell. The convolution reads, at 2 y + i + row - before, its kernel's
    row i, and likewise columns.
    """
    outputs, inputs, side, _ = weight.shape
    result = weight.new_zeros(4, inputs, outputs, 3, 3)
    for place, (down, across) in enumerate(CELL):
        for y, x in ((y, x) for y in range(3) for x in range(3)):
            i, j = down - 2 * (y - 1) - row + before, across - 2 * (x - 1) - column + before
            if 0 <= i < side and 0 <= j < side:
                result[place, :, :, y, x] = weight[:, :, i, j].T
    return result.flatten(0, 1)


def known_taps(head: Head, number: int) -> Tensor:
    """Which taps of a pass's kernel read bins of earlier passes, [planes, K, K]."""
    conv = head.first.terms[1]
    side, planes = conv.kernel, conv.weight.shape[1]
    mask = torch.ones(planes, side, side)
    own, first = number % len(PHASES), 0 if number < len(PHASES) else LUMA_PLANES
    for i in range(side):
        for j in range(side):
            place = ((i - side // 2 + head.row) % 2, (j - side // 2 + head.column) % 2)
            if PHASES.index(place) >= own:
                mask[first:, i, j] = 0
    return mask


def adjoint_graph(name: str, prior: Prior, condition_length: int, hands_on: bool) -> onnx.ModelProto:
    """What a trunk reads, planes of all bins and derivatives -> derivatives by what a level's prior reads.

    Inputs: low, parent, low_scale, edge_scale, condition; planes [N, 32, H, W]; by what heads say, means and raw scale
    indices of luma, then of chroma, said_back [N, 18, H, W]; by offsets, in half bins, offsets_back [N, 9, H, W]; by
    what is handed on, if anything is, handed_on_back.
    Outputs: by planes, planes_back [N, 27, H, W]; by activations that the trunk reads, without what smoothing takes
    away, read_back [N, 6, H, W]; by the parent, parent_back.
    """
    g = AdjointGraph(name, BYTE_BITS)
    trunk, net = prior.trunk, prior.dequantiser
    low, parent, low_scale, edge_scale, condition = trunk_inputs(g, trunk, condition_length)
    planes = g.input("planes", ["N", PLANES_READ, "H", "W"])
    said = g.input("said_back", ["N", 18, "H", "W"])
    offsets = g.input("offsets_back", ["N", 9, "H", "W"])
    found = trunk_bytes(g, trunk, low, parent, (low_scale, edge_scale), condition)
    luma, all_bins, of_heads = _heads_back(g, prior, found[-1], planes, said, condition, low)
    of_net, of_bins = _dequantiser_back(g, net, found[-1], planes, offsets, condition, hands_on)
    all_bins = g.add("Add", all_bins, of_bins)
    luma_bins, chroma_bins = g.split(all_bins, [LUMA_PLANES, PLANES - LUMA_PLANES])
    g.output(g.cat(g.add("Add", luma_bins, luma), chroma_bins), "planes_back", ["N", PLANES, "H", "W"])
    _trunk_back(g, trunk, found, g.total(of_heads, of_net))
    return g.model()


def _heads_back(
    g: AdjointGraph, prior: Prior, features: str, planes: str, said: str, condition: str, like: str
) -> tuple[str, str, str]:
    """Heads -> derivatives by luma's planes as luma's heads read them, by all planes, and by features."""
    turned, luma_planes = g.turned(features), g.slice(planes, 1, 0, LUMA_PLANES)
    by_luma: list[str] = []
    by_all: list[str] = []
    by_phase: list[list[str]] = [[] for _ in PHASES]
    for number, head in enumerate(prior.heads):
        chroma = number >= len(PHASES)
        phase = g.slice(g.slice(turned, 1, head.row, step=2), 2, head.column, step=2)
        weights, inputs = head.first.integer_weights(), [g.widened(g.turned_back(phase))]
        pads: list[list[int] | None] = [None]
        if number:
            left, right, top, bottom = head.pads
            weights[1] = weights[1] * known_taps(head, number)
            inputs.append(planes if chroma else luma_planes)
            pads.append([top, left, bottom, right])
        first = g.byte(g.sum(head.first, inputs, condition, pads, weights))
        second = g.byte(g.sum(head.second, [g.widened(first)], condition))
        own = g.slice(said, 1, 6 if chroma else 0, 18 if chroma else 6)
        own = g.slice(g.slice(own, 2, head.row, step=2), 3, head.column, step=2)
        x = g.where(g.back(transposed(head.last.integer_weights()[0]), own, SAID_BITS, SAID_BITS), second)
        x = g.where(g.back(transposed(head.second.integer_weights()[0]), x, SAID_BITS, HEAD_BITS), first)
        by_phase[number % len(PHASES)].append(g.back(transposed(weights[0]), x, HEAD_BITS, FEATURE_BITS))
        if number:
            kernel = phases_back(weights[1], head.row, head.column, head.first.terms[1].kernel // 2)
            (by_all if chroma else by_luma).append(g.back(kernel, x, HEAD_BITS, PLANE_BITS))
    summed = {place: g.total(*parts) for place, parts in zip(PHASES, by_phase, strict=True)}
    cells = g.cat(*(summed[place] for place in CELL))
    return (
        g.turned_back(cells_apart(g, g.total(*by_luma), like, LUMA_PLANES)),
        g.turned_back(cells_apart(g, g.total(*by_all), like, PLANES)),
        g.turned_back(cells_apart(g, cells, like, prior.trunk.width)),
    )


def _dequantiser_back(
    g: AdjointGraph, net: Dequantiser, features: str, planes: str, offsets: str, condition: str, hands_on: bool
) -> tuple[str, str]:
    """Dequantiser -> derivatives by features and by all planes."""
    width, joined, read = int(net.first.terms[0].weight.shape[1]), "", [""]
    if net.join is not None:
        read = bytes_read(g, net, features, planes, condition)
        joined = g.layer(net.join, g.cat(features, read[-1]))
    parent = g.cat(features, joined) if joined else features
    weights = net.last.integer_weights()
    by_features, by_joined, by_planes = [], [], []
    if hands_on:
        handed = g.input("handed_on_back", ["N", width + (len(net.join.bias) if net.join is not None else 0), "H", "W"])
        by_features.append(g.finer(g.slice(handed, 1, 0, width), HIDDEN_BITS, FEATURE_BITS))
        if joined:
            by_joined.append(g.slice(handed, 1, width))
    if net.refiner is not None:
        refined = bytes_read(g, net.refiner, parent, planes, condition)
        last = g.where(g.back(transposed(weights[-1]), offsets, OFFSET_BITS, HIDDEN_BITS), refined[-1])
        by_parent, own = _reader_back(g, net.refiner, refined, last)
        by_planes.append(own)
        by_features.append(g.slice(by_parent, 1, 0, width))
        if joined:
            by_joined.append(g.finer(g.slice(by_parent, 1, width), FEATURE_BITS, HIDDEN_BITS))
    if net.join is not None:
        by_joined.append(g.back(transposed(weights[0]), offsets, OFFSET_BITS, HIDDEN_BITS))
        x = g.where(g.total(*by_joined), joined)
        kernel = net.join.integer_parts()[0]
        by_features.append(g.back(transposed(kernel[:, :width]), x, HIDDEN_BITS, FEATURE_BITS))
        last = g.where(g.back(transposed(kernel[:, width:]), x, HIDDEN_BITS, HIDDEN_BITS), read[-1])
        own_features, own = _reader_back(g, net, read, last)
        by_features.append(own_features)
        by_planes.append(own)
    return g.total(*by_features), g.total(*by_planes)


def _reader_back(g: AdjointGraph, net: Reader, found: list[str], x: str) -> tuple[str, str]:
    """A Reader, and by what its last layer gave -> by the bytes and by the planes it reads."""
    kernels = [layer.integer_parts()[0] for layer in net.layers]
    x = g.layers_back(kernels, found[:-1], x, HIDDEN_BITS)
    seen, planes = (transposed(weight) for weight in net.first.integer_weights())
    return g.back(seen, x, HIDDEN_BITS, FEATURE_BITS), g.back(planes, x, HIDDEN_BITS, PLANE_BITS)


def _trunk_back(g: AdjointGraph, trunk: Trunk, found: list[str], features: str) -> None:
    """A trunk, the activations of its layers and derivatives by its features -> outputs."""
    kernels = [layer.integer_parts()[0] for layer in trunk.layers]
    x = g.finer(g.where(features, found[-1]), FEATURE_BITS, HIDDEN_BITS)
    x = g.layers_back(kernels, found[:-1], x, HIDDEN_BITS)
    weight, carry = trunk.integer_weights()
    read = g.back(transposed(weight), x, HIDDEN_BITS, READ_BITS)
    value, edges = g.split(read, [3, 3])
    smoothed = g.add("Conv", edges, g.constant(trunk.smoothing), group=3, pads=[2] * 4)
    g.output(g.cat(value, g.add("Sub", edges, g.add("Round", smoothed))), "read_back", ["N", 6, "H", "W"])
    # Channel c * 4 + k of what is carried belongs to place k of the cell.
    cells = carry[:, :, 0, 0].unflatten(0, (-1, 2, 2)).permute(3, 0, 1, 2)
    by_parent = g.back(cells, x, HIDDEN_BITS, HIDDEN_BITS, strides=[2, 2], pads=[0] * 4)
    g.output(by_parent, "parent_back", ["N", carry.shape[1], "h", "w"])
