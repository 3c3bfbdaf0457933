"""Planes <-> latent: one level of the flow at a time, by the forward and the inverse graph.

Where a side is odd, the high band ends one sample before the low band. Graphs run on planes of even sides, one row or
column of which then counts for nothing: what reads it is told to read the sample before it instead, so that the band is
mirrored, and there are no details of it.
"""

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Floats
from service.codec.artifact import Model
from service.codec.lattice import LOSSLESS_UNIT, pad_even

Size = tuple[int, int]


def _conditions(model: Model, count: int, level: int, unit: int, size: Size) -> dict[str, Floats]:
    one_hot = np.zeros((count, model.rungs), np.float32)
    one_hot[:, model.rung(level, unit)] = 1
    (own_row, previous_row), (own_column, previous_column) = (_ends(side) for side in size)
    return {
        "rung": one_hot,
        "unit": np.tile(np.array([[unit, 1 / unit]], np.float32), (count, 1)),
        "kept": present(size)[None].astype(np.float32),
        "own_row": own_row.reshape(1, 1, -1, 1),
        "previous_row": previous_row.reshape(1, 1, -1, 1),
        "own_column": own_column.reshape(1, 1, 1, -1),
        "previous_column": previous_column.reshape(1, 1, 1, -1),
    }


def _ends(side: int) -> tuple[Floats, Floats]:
    """How often low samples along a side read the high sample at their place, and the one before; a single 1: all."""
    if side % 2 == 0:
        return np.ones(1, np.float32), np.ones(1, np.float32)
    own, previous = np.ones((2, side // 2 + 1), np.float32)
    own[-1], previous[-1] = 0, 2 if side > 1 else 0
    return own, previous


def present(size: Size) -> NDArray[np.bool_]:
    """Which details of a level there are, [9, h, w], size: of the planes; a single one: all."""
    if size[0] % 2 == 0 and size[1] % 2 == 0:
        return np.ones((1, 1, 1), np.bool_)
    height, width = ((side + 1) // 2 for side in size)
    result = np.ones((9, height, width), np.bool_)
    if size[0] % 2:
        result[3:, -1] = False  # HL and HH
    if size[1] % 2:
        result[[0, 1, 2, 6, 7, 8], :, -1] = False  # LH and HH
    return result


def forward(planes: Floats, model: Model, level: int, unit: int) -> tuple[Floats, Floats]:
    """One level: planes [N, 3, H, W] -> low [N, 3, ceil(H/2), ceil(W/2)] and details [N, 9, ...], lattice units.

    Details that are not `present` are 0.
    """
    conditions = _conditions(model, len(planes), level, unit, (planes.shape[2], planes.shape[3]))
    low, details = model.sessions["forward"].run(["low", "details"], {"planes": pad_even(planes)} | conditions)
    return low, details


def inverse(low: Floats, details: Floats, model: Model, level: int, unit: int, size: Size) -> Floats:
    """Undo `forward`; size is (H, W) of the planes. Details that are not `present` are not read."""
    feeds = {"low": low, "details": details} | _conditions(model, len(low), level, unit, size)
    (planes,) = model.sessions["inverse"].run(["planes"], feeds)
    return np.ascontiguousarray(planes[:, :, : size[0], : size[1]])


def with_chroma(low: Floats, chroma: Floats, model: Model) -> Floats:
    """The first low-pass of lossless pictures without chroma, [N, 3, h, w], with samples of chroma, [N, 2, h, w].

    These get the constant that the coupling step adds to chroma on average, so that the prior sees what it knows.
    """
    return np.concatenate([low[:, :1], chroma + _constants(model)], 1)


def chroma_of(low: Floats, model: Model) -> Floats:
    """The reverse of `with_chroma`: the samples of chroma."""
    return low[:, 1:] - _constants(model)


def _constants(model: Model) -> Floats:
    offsets = model.tables.low_offsets[model.rung(0, LOSSLESS_UNIT), 1:].astype(np.int64)
    return ((offsets + 2**19) >> 20).astype(np.float32)[:, None, None]
