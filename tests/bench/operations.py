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

    A head computes one position in four, and what a trunk carries over from the coarser level is computed there.
    """
    graph = onnx.load(path).graph
    sizes = {weight.name: weight.dims for weight in graph.initializer}
    head = path.stem.split("_")[-1].startswith(("luma", "chroma"))
    parent = {node.output[0] for node in graph.node if node.op_type == "Cast" and node.input[0] == "parent"}
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            outputs, inputs, height, width = sizes[node.input[1]]
            whole = outputs * inputs * height * width
            total += whole // 4 if head or node.input[0] in parent else whole
    return total


def a_pixel(folder: Path) -> tuple[float, float]:
    """Thousands of multiplications for a pixel to encode and to decode a lossy stream; folder: of the model."""
    every = FINEST * 4 / 3  # 1 + 1/4 + 1/16 + ...
    positions = [FINEST / 4**level for level in range(len(PRIORS) - 1)]
    positions.append(every - sum(positions))
    prior = sum(
        share * of_graph(folder / f"{graph_of_level(name, level)}.onnx")
        for level, share in enumerate(positions)
        for name in PRIOR_GRAPHS
    )
    forward, inverse = (every * of_graph(folder / f"{name}.onnx") for name in ("forward", "inverse"))
    return (prior + forward + inverse) / KILO, (prior + inverse) / KILO
