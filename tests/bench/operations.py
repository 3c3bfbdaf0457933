"""Multiplications of the shipped graphs for each pixel, counted from the weights of their convolutions."""

from __future__ import annotations

from pathlib import Path

import onnx

from service.codec.artifact import PRIOR_GRAPHS, PRIORS, graph_of_level

FINEST = 1 / 4
"""Positions of the finest level for each pixel; every coarser level has a quarter of those of the one before."""
KILO = 1000


def of_graph(path: Path) -> int:
    """Multiplications for each position of a level.

    A head computes one position in four. A trunk's first layer works on 2x2 cells, as the coarser level does whose
    features it carries over.
    """
    graph = onnx.load(path).graph
    sizes = {weight.name: weight.dims for weight in graph.initializer}
    for node in graph.node:  # kernels are cast, then multiplied by their units
        if node.op_type in ("Cast", "Mul") and node.input[0] in sizes:
            sizes[node.output[0]] = sizes[node.input[0]]
    head = path.stem.split("_")[-1].startswith(("luma", "chroma"))
    cells = {"parent"}
    for node in graph.node:
        if node.op_type in ("Slice", "Cast") and node.input[0] in cells:
            cells.add(node.output[0])
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            outputs, inputs, height, width = sizes[node.input[1]]
            whole = outputs * inputs * height * width
            strided = any(a.name == "strides" and list(a.ints) == [2, 2] for a in node.attribute)
            total += whole // 4 if head or strided or node.input[0] in cells else whole
    return total


def a_pixel(folder: Path) -> tuple[float, float]:
    """Thousands of multiplications for a pixel to encode, without effort, and to decode a lossy stream.

    folder: of the model.
    """
    every = FINEST * 4 / 3  # 1 + 1/4 + 1/16 + ...
    positions = [FINEST / 4**level for level in range(len(PRIORS) - 1)]
    positions.append(every - sum(positions))
    prior = sum(
        share * of_graph(folder / f"{graph_of_level(name, level)}.onnx")
        for level, share in enumerate(positions)
        for name in PRIOR_GRAPHS
        if name != "adjoint"
    )
    forward, inverse = (every * of_graph(folder / f"{name}.onnx") for name in ("forward", "inverse"))
    return (prior + forward + inverse) / KILO, (prior + inverse) / KILO
