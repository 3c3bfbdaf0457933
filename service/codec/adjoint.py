"""The codec backwards: derivatives by what a level puts out -> by what went into it. Encoder only.

Derivatives are integers in fixed units and graphs are exact, so every machine finds the same; that they are clipped,
and rounded to a few bits, is of no matter. The coupling step, rounding and the mirroring at borders count as nothing.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.codec.arrays import Floats, Integers, Shorts
from service.codec.artifact import Model
from service.codec.coder_tables import Tables
from service.codec.lattice import LEAN_256THS, LOSSY_UNIT, READ_UNIT
from service.codec.prior import CHROMA, LUMA, PLANE_ZERO, PLANES_READ, on_device, planes_of

Wide = NDArray[np.int64]

LIMIT = 127
"""Derivatives that graphs read and give are bytes: clipped to this."""
SAID_BITS, OFFSET_BITS, PLANE_BITS, READ_BITS = 3, 4, 4, 5
"""They are in 1/2**bits bit: by what heads say, by offsets, by planes of bins and by what trunks read."""
STATE_BITS, STATE_LIMIT = 6, 8191
"""Those by a state of the flow are in 1/2**STATE_BITS bit for 2**exponent lattice units, and clipped to STATE_LIMIT;
the exponent is one less at each coarser level."""
SYNTHESIS_SIDE, SYNTHESIS_BITS = 11, 8
"""Side and unit of the kernels of the flow's adjoint."""


def shifted(values: Wide, bits: Wide | int) -> Wide:
    """Values over 2**bits, halves up; bits: 0 or more, one for all or one for each of N."""
    each = np.asarray(bits, np.int64)
    shift = each.reshape(-1, *(1,) * (values.ndim - 1)) if each.ndim else each
    result: Wide = (values + (np.int64(1) << shift >> 1)) >> shift
    return result


def clipped(values: Wide) -> Wide:
    """Derivatives by a state within STATE_LIMIT."""
    return np.clip(values, -STATE_LIMIT, STATE_LIMIT)


def colours_back(state: Wide) -> Wide:
    """By blue, green and red -> by Y, Cg and Co, [N, 3, H, W]."""
    blue, green, red = np.moveaxis(state, 1, 0)
    total = blue + green + red
    return clipped(np.stack([total, shifted((LEAN_256THS - 128) * total, 8) + green, (red - blue) >> 1], 1))


def flow_back(state: Wide, model: Model, level: int) -> tuple[Wide, Wide]:
    """By a state, [N, 3, H, W] -> by the low-pass below it, in its own unit, and by its details, [N, 9, h, w].

    Details' are in 1/2**(STATE_BITS + SYNTHESIS_BITS) bit for as many lattice units as the state's.
    """
    count, colours, height, width = state.shape
    rows, columns, reach = (height + 1) // 2, (width + 1) // 2, SYNTHESIS_SIDE // 2
    padded = np.zeros((colours, count, 2 * rows + 2 * reach - 1, 2 * columns + 2 * reach - 1), np.float32)
    padded[:, :, reach : reach + height, reach : reach + width] = state.swapaxes(0, 1)
    kernels, bands = model.tables.synthesis[level], np.empty((colours, count, 4, rows, columns), np.int64)
    for kernel, own in zip(kernels, (slice(0, 1), slice(1, 3)), strict=True):
        feeds = {"state": padded[own].reshape(-1, 1, *padded.shape[2:]), "kernel": kernel}
        bands[own] = model.sessions["synthesis_back"].run(["bands"], feeds)[0].reshape(bands[own].shape)
    details = bands[:, :, 1:].transpose(1, 2, 0, 3, 4).reshape(count, 9, rows, columns)
    return clipped(shifted(bands[:, :, 0].swapaxes(0, 1), SYNTHESIS_BITS + 1)), details


def prior_back(
    feeds: dict[str, ort.OrtValue],
    bins: Integers,
    said: Floats,
    points: Wide,
    handed_on: Floats | None,
    model: Model,
    level: int,
) -> tuple[Wide, Wide, Floats]:
    """Through a level's prior.

    Args:
        feeds: What its trunk reads, as `trunk_feeds` gives it.
        bins: [N, 9, h, w].
        said: By what heads say, as `said_back` gives it, [N, 18, h, w].
        points: By points, in 1/2**STATE_BITS bit for a bin, [N, 9, h, w].
        handed_on: By what is handed on to the finer level; None at the finest.
        model: Whose prior.
        level: Which level.

    Returns:
        By planes of bins, [N, 27, h, w], by what the trunk reads, [N, 6, h, w], and by its parent.
    """
    even, (height, width) = feeds["low"].shape()[2:], bins.shape[2:]
    planes = [planes_of(bins[:, list(bands)], model.tables.squash) for bands in (LUMA, CHROMA)]
    # An offset is in half bins.
    offsets = np.clip(shifted(points, 1 + STATE_BITS - OFFSET_BITS), -LIMIT, LIMIT).astype(np.float32)
    more = {
        "planes": _filled(np.concatenate(planes, 1) - np.float32(PLANE_ZERO), even, PLANES_READ),
        "said_back": _filled(said, even, said.shape[1]),
        "offsets_back": _filled(offsets, even, offsets.shape[1]),
    }
    if handed_on is not None:
        more["handed_on_back"] = _filled(handed_on, even, handed_on.shape[1])
    values = feeds | {name: on_device(value, model) for name, value in more.items()}
    outputs = ["planes_back", "read_back", "parent_back"]
    found = model.prior_session("adjoint", level).run_with_ort_values(outputs, values)
    by_planes, by_read, by_parent = (own.numpy() for own in found)
    there = slice(None), slice(None), slice(height), slice(width)
    return by_planes[there].astype(np.int64), by_read[there].astype(np.int64), by_parent


def _filled(values: Floats, size: tuple[int, int], channels: int) -> Floats:
    """With zeros below, to the right and as further channels."""
    count, own, height, width = values.shape
    result = np.zeros((count, channels, *size), np.float32)
    result[:, :own, :height, :width] = values
    return result


def said_back(bins: Integers, means: Shorts, scales: Shorts, tables: Tables) -> Floats:
    """By means and raw scale indices, luma's and then chroma's, [18, h, w], from what bins of a tile, [9, h, w], cost.

    From what they would cost with the mean an eighth, and the scale index one, lower and higher.
    """

    def difference(lower: tuple[Shorts, Shorts], higher: tuple[Shorts, Shorts], bits: int) -> Integers:
        costs = [tables.costs(bins.ravel(), mean.ravel(), scale.ravel()) for mean, scale in (lower, higher)]
        result: Integers = (costs[1] - costs[0]).reshape(bins.shape) >> bits
        return result

    one, last = np.int16(1), np.int16(tables.choice.shape[0] - 1)
    # Two eighths of a bin in 1/256 bit; two scale indices, which raw ones have a quarter of.
    by_mean = difference((means - one, scales), (means + one, scales), 6 - SAID_BITS)
    scale = np.maximum(scales - one, np.int16(0)), np.minimum(scales + one, last)
    by_scale = difference((means, scale[0]), (means, scale[1]), 7 - SAID_BITS)
    parts = [own[list(bands)] for bands in (LUMA, CHROMA) for own in (by_mean, by_scale)]
    return np.clip(np.concatenate(parts), -LIMIT, LIMIT).astype(np.float32)


def read_back(by_read: Wide, model: Model, level: int, codes: list[int], exponents: Wide) -> Wide:
    """By what a trunk reads, [N, 6, h, w] -> by its low-pass, for 2**exponent lattice units, [N, 3, h, w]."""
    tables = model.tables
    # Everything is a multiple of a power of two that doubles hold exactly.
    unit = np.exp2((exponents + STATE_BITS - READ_BITS).astype(np.float64)) * READ_UNIT / LOSSY_UNIT
    value = np.float64(tables.low_scales[model.rung(level, LOSSY_UNIT)]) / READ_UNIT
    edges = tables.edge_scales[codes, level].astype(np.float64)[:, :, None, None]
    back = (by_read[:, :3] * value + by_read[:, 3:] * edges) * unit[:, None, None, None]
    return clipped(np.rint(back).astype(np.int64))
