"""Planes <-> latent: one level of the flow at a time, by the forward and the inverse graph."""

import numpy as np

from service.codec.arrays import Floats
from service.codec.artifact import Model
from service.codec.lattice import pad_even


def _conditions(model: Model, count: int, level: int, unit: int) -> dict[str, Floats]:
    one_hot = np.zeros((count, model.rungs), np.float32)
    one_hot[:, model.rung(level, unit)] = 1
    return {"rung": one_hot, "unit": np.tile(np.array([[unit, 1 / unit]], np.float32), (count, 1))}


def forward(planes: Floats, model: Model, level: int, unit: int) -> tuple[Floats, Floats]:
    """One level: planes [N, 3, H, W] -> low [N, 3, ceil(H/2), ceil(W/2)] and details [N, 9, ...], lattice units."""
    feeds = {"planes": pad_even(planes)} | _conditions(model, len(planes), level, unit)
    low, details = model.sessions["forward"].run(["low", "details"], feeds)
    return low, details


def inverse(low: Floats, details: Floats, model: Model, level: int, unit: int, size: tuple[int, int]) -> Floats:
    """Undo `forward`; size is (H, W) of the planes, what was padded is cut off."""
    feeds = {"low": low, "details": details} | _conditions(model, len(low), level, unit)
    (planes,) = model.sessions["inverse"].run(["planes"], feeds)
    return np.ascontiguousarray(planes[:, :, : size[0], : size[1]])
