"""The flow's layers -> ONNX graphs: one level forward, one level back."""

from __future__ import annotations

import onnx
import torch
from torch import Tensor

from model_export.flow import colour
from model_export.flow.coupling import OUTPUT_BITS, OUTPUT_LIMIT, Coupling
from model_export.flow.multilevel import MultilevelFlow
from model_export.graph_builder import Graph
from model_export.integers import ACTIVATION_BITS

GraphTap = tuple[str, str, str | None]
"""Coarse and fine fraction of a tap and its whole part, if it has one."""


Ends = tuple[str, str]
"""How often a low sample reads the high sample at its own place and the one before: once each, but 0 and 2 times at the
end of an odd side, where the high band ends one sample before the low band and is mirrored."""


def lifting_steps(
    graph: Graph, low: str, high: str, axis: int, taps: list[GraphTap], sign: str, ends: Ends
) -> tuple[str, str]:
    """The four lifting steps in order (sign Add) or undone in reverse (sign Sub)."""
    order = range(4) if sign == "Add" else reversed(range(4))
    for step in order:
        to_high = step % 2 == 0
        source = low if to_high else high
        if to_high:
            own, other = source, graph.cat(graph.slice(source, axis, 1), graph.slice(source, axis, -1), axis=axis)
        else:
            previous = graph.cat(graph.slice(source, axis, 0, 1), graph.slice(source, axis, 0, -1), axis=axis)
            own, other = (graph.add("Mul", x, count) for x, count in zip((source, previous), ends, strict=True))
        neighbours = graph.add("Add", own, other)
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


class FlowGraph(Graph):
    """What the forward and the inverse graph share: conditions, colour, coupling."""

    def __init__(self, name: str, flow: MultilevelFlow) -> None:
        super().__init__(name)
        self.flow = flow

    def prepare(self) -> None:
        """Declare rung, unit and what is known of odd sides, and derive gate, lean, scale, gain and taps."""
        self.kept = self.input("kept", [1, "K", "k", "m"])
        self.rows = self.input("own_row", [1, 1, "r", 1]), self.input("previous_row", [1, 1, "r", 1])
        self.columns = self.input("own_column", [1, 1, 1, "c"]), self.input("previous_column", [1, 1, 1, "c"])
        self.rung = self.input("rung", ["N", self.flow.rungs])
        unit = self.input("unit", ["N", 2])
        forwards, backwards = self.split(unit, [1, 1])
        chosen = self.add("MatMul", self.rung, self.constant(self.flow.scales.double()))
        scale, gain = self.split(chosen, [1, 1])
        units = 2.0**ACTIVATION_BITS
        self.scale = self.planes(self.add("Mul", self.add("Mul", scale, backwards), self.constant(2 * units)))
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

    def told(self, coupling: Coupling, details: str) -> str:
        """What the coupling step adds to the low-pass, in lattice units, rounded."""
        net = coupling.update
        hidden = self.activation(self.sum(net.first, [self.read(details, self.scale)], self.rung))
        raw = self.sum(net.last, [hidden], self.rung)
        value = self.clip(
            self.add("Mul", raw, self.constant(16.0 * 2.0**-ACTIVATION_BITS)), -OUTPUT_LIMIT, OUTPUT_LIMIT
        )
        return self.add("Round", self.add("Mul", self.grid(value, OUTPUT_BITS), self.gain))

    def known(self, details: str) -> str:
        """Details, 0 where an odd side has none."""
        return self.add("Mul", details, self.kept)

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
    low, high = lifting_steps(g, g.slice(x, 2, 0, step=2), g.slice(x, 2, 1, step=2), 2, rows, "Add", g.rows)
    ll, lh = lifting_steps(g, g.slice(low, 3, 0, step=2), g.slice(low, 3, 1, step=2), 3, columns, "Add", g.columns)
    hl, hh = lifting_steps(g, g.slice(high, 3, 0, step=2), g.slice(high, 3, 1, step=2), 3, columns, "Add", g.columns)
    details = g.known(g.cat(lh, hl, hh))
    ll = g.add("Add", ll, g.told(flow.coupling, details))
    g.output(ll, "low", ["N", 3, "h", "w"])
    g.output(details, "details", ["N", 9, "h", "w"])
    return g.model()


def inverse_graph(flow: MultilevelFlow) -> onnx.ModelProto:
    """One level of the inverse flow: low, details, rung, unit -> planes."""
    g = FlowGraph("inverse", flow)
    low, details = g.input("low", ["N", 3, "h", "w"]), g.input("details", ["N", 9, "h", "w"])
    g.prepare()
    details = g.known(details)
    ll = g.add("Sub", low, g.told(flow.coupling, details))
    rows, columns = g.taps
    lh, hl, hh = g.split(details, [3, 3, 3])
    low = interleave(g, *lifting_steps(g, ll, lh, 3, columns, "Sub", g.columns), 3)
    high = interleave(g, *lifting_steps(g, hl, hh, 3, columns, "Sub", g.columns), 3)
    y, cg, co = g.split(interleave(g, *lifting_steps(g, low, high, 2, rows, "Sub", g.rows), 2), [1, 1, 1])
    t = g.add("Sub", g.add("Add", y, g.leaning(cg)), g.half(cg))
    b = g.add("Sub", t, g.half(co))
    green = g.add("Add", cg, g.add("Mul", g.gate, t))
    red = g.add("Add", co, g.add("Mul", g.gate, b))
    g.output(g.cat(b, green, red), "planes", ["N", 3, "H", "W"])
    return g.model()
