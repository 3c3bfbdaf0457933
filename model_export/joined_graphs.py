"""Sums of layers of bytes -> nodes of a graph: one 8-bit operation on inputs that are joined, channels last.

What is joined: bytes of earlier layers, what is read of bins, and the condition as channels that are the same
everywhere. Bins are read as signed numbers; PLANE_ZERO is added to them to make bytes, and taken away by the operation
that reads them, also where it reads nothing, beyond the borders. Bytes and condition are joined to them as they are:
they are read at one place alone, so that what is taken away is made good by the bias.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor

from model_export.byte_sum import CONDITION_BITS, ByteSum, WholeSum
from model_export.graph_builder import Graph
from model_export.prior import Head
from service.codec.prior import PHASES, PLANE_ZERO, PLANES, PLANES_READ, whole_fours


def condition_bytes(g: Graph, condition: str, layer: ByteSum, like: str, beside: int) -> str:
    """The condition as channels, [N, H, W, C], of the size of bytes `like`; with `beside` more they are whole fours."""
    rows = g.slice(condition, 1, layer.served.start, layer.served.stop)
    rows = g.add("Cast", g.add("Mul", rows, g.constant(2.0**CONDITION_BITS)), to=TensorProto.UINT8)
    served = layer.served.stop - layer.served.start
    missing = whole_fours(served + beside) - served - beside
    if missing:
        rows = g.add("Pad", rows, g.constant([0, 0, 0, missing]))
    places = g.add("Slice", g.add("Shape", like), g.constant([1]), g.constant([3]), g.constant([0]))
    size = g.add("Concat", g.constant([1]), places, g.constant([1]), axis=0)
    return g.add("Expand", g.add("Unsqueeze", rows, g.constant([1, 2])), size)


def joined_input(g: Graph, layer: ByteSum) -> str:
    """Features, bins and condition as a chroma head or a dequantiser reads them, [N, H, W, C], bytes."""
    channels = layer.terms[0].weight.shape[1] + PLANES + layer.served.stop - layer.served.start
    return g.input("joined", ["N", "H", "W", whole_fours(channels)], TensorProto.UINT8)


def cell_kernel(kernel: Tensor, head: Head, known: int) -> Tensor:
    """A kernel of planes of a phase -> one of cells, of planes of so many phases: [out, in, K, K] -> [.., 3, 3].

    The kernel reads, at the place of the head's phase in a cell, its own row i at i - K // 2 rows below, and likewise
    columns; a phase has every other one of them.
    """
    outputs, inputs, side, _ = kernel.shape
    result = kernel.new_zeros(outputs, known, inputs, 3, 3)
    for phase, (row, column) in enumerate(PHASES[:known]):
        for y, x in ((y, x) for y in range(3) for x in range(3)):
            i, j = 2 * (y - 1) + row - head.row + side // 2, 2 * (x - 1) + column - head.column + side // 2
            if 0 <= i < side and 0 <= j < side:
                result[:, phase, :, y, x] = kernel[:, :, i, j]
    return result.flatten(1, 2)


def joined_sum(g: Graph, layer: WholeSum, x: str, kernels: list[Tensor], pads: list[int], stride: int = 1) -> str:
    """A ByteSum: joined bytes -> bytes.

    Args:
        g: Of 8-bit kernels.
        layer: The sum.
        x: What is joined, [N, H, W, C]: what kernels read, the condition, and what is not read to make whole fours.
        kernels: Of what is joined, one after the other; of one place, or of as many as any.
        pads: As in `Graph.byte_conv`, as is stride.
        stride: See pads.
    """
    each = [*kernels, layer.condition[:, :, None, None]]
    side = max(kernel.shape[2] for kernel in each)
    zero = PLANE_ZERO if side > 1 else 0
    bias = layer.middle + sum(zero * kernel.sum((1, 2, 3)) for kernel in each if kernel.shape[2] == 1)
    kernel = torch.cat([_within(kernel, side) for kernel in each], 1)
    kernel = F.pad(kernel, (0, 0, 0, 0, 0, whole_fours(kernel.shape[1]) - kernel.shape[1]))
    return g.byte_conv(x, kernel, bias, layer.shifts, pads, stride, zero)


def _within(kernel: Tensor, side: int) -> Tensor:
    """A kernel of one place as one of side x side."""
    return F.pad(kernel, [(side - kernel.shape[2]) // 2] * 4)


def planes_apart(g: Graph, joined: str, first: int) -> str:
    """What is read of bins, as floats, [N, 32, H, W], out of joined bytes; whatever follows it is read with nothing."""
    return bins_read(g, g.slice(joined, 3, first, first + PLANES_READ))


def bins_read(g: Graph, planes: str) -> str:
    """What is read of bins, bytes with channels last -> as floats, channels first."""
    return g.turned_back(g.add("Sub", g.widened(planes), g.constant(float(PLANE_ZERO))))
