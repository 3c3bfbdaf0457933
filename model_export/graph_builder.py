"""Nodes of an ONNX graph, and the layers of model_export.integers as nodes.

Written with onnx.helper rather than traced, so that every node is one the design allows: Conv and MatMul with
dyadic weights, Add, Sub, Mul, Round, Floor, Clip, Abs, Pad, Slice, Concat, Reshape, Transpose, Split, Cast, Quantize-
and DequantizeLinear by powers of two; and where a processor has 8-bit kernels MatMulInteger and ONNX Runtime's own
QLinearConv with channels last. Shape and Gather-like nodes only move data. Weights carry their power-of-two scale, so
that a convolution's output needs no rescaling before it is clipped and rounded.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from model_export.byte_sum import ByteSum
from model_export.integers import (
    ACCUMULATOR_LIMIT,
    ACTIVATION_BITS,
    BYTE_BITS,
    BYTE_LIMIT,
    TOP,
    ByteLayer,
    ConditionTable,
    ExactConv,
    ExactSum,
)
from service.codec.prior import PLANES, PLANES_READ

OPSET, IR_VERSION = 17, 8
RUNTIME = "com.microsoft"
"""ONNX Runtime's own operations."""
FINEST_UNIT = 40
"""Kernels are multiples of 2**-FINEST_UNIT."""
Array = NDArray[np.generic]


class Graph:
    """Collects nodes; every method adds one and returns its output's name.

    Args:
        name: Of the graph.
        bits: Activations and sums are held in units of 2**-bits, as whole numbers.
        byte_kernels: Whether layers of bytes become QLinearConv; such layers have their channels last.
    """

    def __init__(self, name: str, bits: int = ACTIVATION_BITS, byte_kernels: bool = False) -> None:
        self.name, self.bits, self.byte_kernels = name, bits, byte_kernels
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.constants: dict[bytes, str] = {}
        self.initializers: list[onnx.TensorProto] = []

    def input(self, name: str, shape: list[int | str], kind: int = TensorProto.FLOAT) -> str:
        """Declare an input."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, value: str, name: str, shape: list[int | str], kind: int = TensorProto.FLOAT) -> None:
        """Give a value an output's name."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def constant(self, value: Array | list[int] | float | Tensor, kind: type[np.generic] | None = None) -> str:
        """A constant: arrays and floats as float32, lists as int64, or of the given kind; equal ones are shared."""
        if isinstance(value, Tensor):
            value = value.detach().double().numpy()
        array = np.asarray(value, kind or (np.int64 if isinstance(value, list) else np.float32))
        key = array.tobytes() + str((array.shape, array.dtype)).encode()
        if key not in self.constants:
            self.constants[key] = f"k{len(self.constants)}"
            self.initializers.append(numpy_helper.from_array(array, self.constants[key]))
        return self.constants[key]

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        output = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def split(self, x: str, sizes: list[int]) -> list[str]:
        """Split along the channels."""
        outputs = [f"split{len(self.nodes)}_{i}" for i in range(len(sizes))]
        self.nodes.append(helper.make_node("Split", [x, self.constant(sizes)], outputs, axis=1))
        return outputs

    def cat(self, *parts: str, axis: int = 1) -> str:
        """Concatenate."""
        return self.add("Concat", *parts, axis=axis)

    def slice(self, x: str, axis: int, start: int, stop: int = 2**31, step: int = 1) -> str:
        """x[start:stop:step] along one axis."""
        return self.add("Slice", x, *(self.constant([v]) for v in (start, stop, axis, step)))

    def planes(self, x: str) -> str:
        """[N, C] -> [N, C, 1, 1]."""
        return self.add("Unsqueeze", x, self.constant([2, 3]))

    def clip(self, x: str, low: float, high: float) -> str:
        """Clip to [low, high]."""
        return self.add("Clip", x, self.constant(low), self.constant(high))

    def grid(self, x: str, bits: int) -> str:
        """Round half to even to multiples of 2**-bits."""
        if not bits:
            return self.add("Round", x)
        up = self.add("Mul", x, self.constant(2.0**bits))
        return self.add("Mul", self.add("Round", up), self.constant(2.0**-bits))

    def model(self) -> onnx.ModelProto:
        """The checked ONNX model, without what no output needs."""
        needed, nodes = {output.name for output in self.outputs}, []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                nodes.append(node)
        constants = [own for own in self.initializers if own.name in needed]
        graph = helper.make_graph(nodes[::-1], self.name, self.inputs, self.outputs, constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(RUNTIME, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="bijou")
        onnx.checker.check_model(model, full_check=True)
        return model

    def table(self, table: ConditionTable, condition: str) -> str:
        """Conditional bias: [N, C, 1, 1]."""
        value = self.add("MatMul", condition, self.constant(table.table() * 2.0**self.bits))
        return self.planes(self.grid(value, ConditionTable.TABLE_BITS - self.bits))

    def bias(self, layer: ExactSum, condition: str) -> str:
        """Conditional bias of a sum: [N, C, 1, 1]."""
        if not isinstance(layer, ByteSum):
            return self.table(layer.table, condition)
        return self.planes(self.add("MatMul", condition, self.constant(layer.rows() * 2.0**self.bits)))

    def conv(self, conv: ExactConv, weight: Tensor, x: str, pads: list[int] | None = None) -> str:
        """Convolution of whole numbers; pads: top, left, bottom, right. Planes of known bins come with spare ones."""
        side = conv.kernel // 2
        strides = [conv.stride, conv.stride]
        if weight.shape[1] == PLANES:
            weight = F.pad(weight, (0, 0, 0, 0, 0, PLANES_READ - PLANES))
        kernel = self.kernel(weight * 2.0 ** (self.bits - conv.bits))
        return self.add("Conv", x, kernel, strides=strides, pads=pads or [side] * 4)

    def kernel(self, weight: Tensor) -> str:
        """A dyadic kernel as whole numbers of one or two bytes and the unit of each output channel.

        A session makes float32 of it when it opens, once.
        """
        whole, units = whole_numbers(weight)
        kind = np.int8 if abs(whole).max() <= np.iinfo(np.int8).max else np.int16
        widened = self.add("Cast", self.constant(whole, kind), to=TensorProto.FLOAT)
        return self.add("Mul", widened, self.constant(units.reshape(-1, 1, 1, 1)))

    def sum(
        self,
        layer: ExactSum,
        inputs: list[str],
        condition: str,
        pads: list[list[int] | None] | None = None,
        weights: list[Tensor] | None = None,
    ) -> str:
        """An ExactSum; weights: in the place of its own."""
        each = enumerate(zip(layer.terms, weights or layer.integer_weights(), inputs, strict=True))
        parts = [self.conv(conv, weight, x, pads[index] if pads else None) for index, (conv, weight, x) in each]
        # The bias last: two convolutions of one size are then added up in place.
        return functools.reduce(lambda a, b: self.add("Add", a, b), [*parts, self.bias(layer, condition)])

    def product(self, layer: ExactSum, inputs: list[str]) -> str:
        """An ExactSum of 1x1 convolutions of bytes, channels last, without its bias.

        Products of bytes with each of the two bytes of a weight, added up apart as 32-bit integers.
        """
        parts = []
        for weight, conv, x in zip(layer.integer_weights(), layer.terms, inputs, strict=True):
            whole, units = whole_numbers(weight[:, :, 0, 0] * 2.0 ** (self.bits - conv.bits))
            low = (whole + 128) % 256 - 128
            both = np.concatenate([(whole - low) // 256, low]).T
            if both.max() > 127 or BYTE_LIMIT * abs(both).sum(0).max() >= ACCUMULATOR_LIMIT:
                raise ValueError("a weight is of more than two bytes, or their sums are of more than float32 holds")
            sums = self.add("MatMulInteger", x, self.constant(both, np.int8))
            together = np.concatenate([np.diag(256 * units[:, 0]), np.diag(units[:, 0])])
            parts.append(self.add("MatMul", self.add("Cast", sums, to=TensorProto.FLOAT), self.constant(together)))
        return functools.reduce(lambda a, b: self.add("Add", a, b), parts)

    def activation(self, x: str) -> str:
        """Clipped ReLU, rounded: whole numbers 0 ... ACTIVATION_LIMIT."""
        return self.add("Round", self.clip(x, 0.0, TOP * 2**ACTIVATION_BITS))

    def byte(self, x: str) -> str:
        """Clipped ReLU, rounded half to even: whole numbers 0 ... 255, as bytes."""
        return self.add("QuantizeLinear", x, self.constant(1.0), self.constant(0.0, np.uint8))

    def turned(self, x: str) -> str:
        """[N, C, H, W] -> [N, H, W, C]."""
        return self.add("Transpose", x, perm=[0, 2, 3, 1])

    def turned_back(self, x: str) -> str:
        """[N, H, W, C] -> [N, C, H, W]."""
        return self.add("Transpose", x, perm=[0, 3, 1, 2])

    def widened(self, x: str) -> str:
        """Bytes -> float32."""
        return self.add("Cast", x, to=TensorProto.FLOAT)

    def layer(self, layer: ByteLayer, x: str) -> str:
        """A ByteLayer: bytes -> bytes, with channels last if it is one operation."""
        weight, bias = layer.integer_parts()
        if not self.byte_kernels:
            units = bias[:, None, None] * 2.0**BYTE_BITS
            return self.byte(self.add("Add", self.conv(layer.conv, weight, self.widened(x)), self.constant(units)))
        shifts = layer.shifts()
        scale = torch.exp2(shifts)
        kernel = weight * scale.view(-1, 1, 1, 1)
        return self.byte_conv(x, kernel, bias * scale * 2.0**BYTE_BITS, shifts, [layer.conv.kernel // 2] * 4)

    def byte_conv(
        self,
        x: str,
        kernel: Array | Tensor,
        bias: Array | Tensor,
        shifts: Array | Tensor,
        pads: list[int],
        stride: int = 1,
        zero: int = 0,
    ) -> str:
        """Bytes, [N, H, W, C] -> sums of products with a whole kernel and bias, over 2**shifts, half to even: bytes.

        Args:
            x: What is read, less `zero`.
            kernel: [out, in, K, K]; kernels of whole fours of channels are up to twice as fast.
            bias: Of each output channel, as are shifts.
            shifts: See above.
            pads: Samples of nothing: top, left, bottom, right.
            stride: Of both axes.
            zero: See x.
        """
        one, nothing = self.constant(1.0), self.constant(0.0, np.uint8)
        scales = self.constant(2.0 ** -np.asarray(shifts, np.float64))
        inputs = [x, one, self.constant(float(zero), np.uint8)]
        inputs += [self.constant(kernel, np.int8), scales, self.constant(0 * np.asarray(shifts), np.int8)]
        inputs += [one, nothing, self.constant(bias, np.int32)]
        attributes = {"pads": pads, "strides": [stride] * 2, "channels_last": 1, "domain": RUNTIME}
        return self.add("QLinearConv", *inputs, **attributes)

    def read(self, x: str, scale: str) -> str:
        """Lattice values -> signed activations."""
        return self.add(
            "Round", self.clip(self.add("Mul", x, scale), -TOP * 2**ACTIVATION_BITS, TOP * 2**ACTIVATION_BITS)
        )


def whole_numbers(weight: Tensor) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """A dyadic kernel [out, ...] -> whole numbers of at most 15 bits and a sign, and their units, [out, 1].

    Raises:
        ValueError: There are none.
    """
    exact = weight.detach().double().flatten(1).numpy()
    finest = np.rint(exact * 2.0**FINEST_UNIT).astype(np.int64)
    lowest_bits = np.where(finest == 0, 2**FINEST_UNIT, finest & -finest)
    units: NDArray[np.float64] = lowest_bits.min(1, keepdims=True) * 2.0**-FINEST_UNIT
    whole = np.rint(exact / units).astype(np.int64).reshape(weight.shape)
    if abs(whole).max() > np.iinfo(np.int16).max or not np.array_equal(finest, exact * 2.0**FINEST_UNIT):
        raise ValueError("a kernel is not dyadic, or of more than 15 bits; call set_exact(True) first")
    return whole, units
