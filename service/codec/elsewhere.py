"""What a bin costs elsewhere: the derivative of rate and distortion by each bin, through the whole codec. Encoder only.

An encoder that weighs a bin's own bits and distortion leaves out what follows from it: heads read it when they say what
later bins cost, dequantisers when they place points, and finer levels a low-pass that it is part of. Here N tiles are
coded once, and what came of it is followed back, finest level first:

    shown less wanted -> flow -> points -> dequantiser --+
                                                         +--> trunk -> low-pass and parent of the level below (coarser)
                 bits of later bins -> heads ------------+
                                                         +--> bins

That tells of every bin what the next one towards 0 would change elsewhere, to first order; `choice` takes it from there.
Derivatives are integers in fixed units and graphs are exact, so every machine finds the same.

Source: Y. Yang et al., "Improving Inference for Neural Image Compression", NeurIPS 2020: what is searched for each
picture there by many gradient steps on its latents. It takes one here, on integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.codec import lattice
from service.codec.arrays import Floats, Integers, Planes, Shorts
from service.codec.artifact import Model
from service.codec.calibration import Said
from service.codec.clock import Clock
from service.codec.coder_tables import COST_UNIT, Tables
from service.codec.lattice import LEAN_256THS, LOSSY_UNIT, READ_UNIT
from service.codec.prior import CHROMA, LUMA, PASSES, PLANES_READ, on_device, place, planes_of, trunk_feeds
from service.codec.quantise import STEP_UNIT, Steps, quantise
from service.codec.tile import analyse, rebuild_lows
from service.codec.walk import DETAILS, Walk, integers

LIMIT = 1023
"""Derivatives that graphs read are clipped to this."""
SAID_BITS, OFFSET_BITS, PLANE_BITS, READ_BITS = 5, 6, 6, 7
"""Derivatives are in 1/2**bits bit: by what heads say, by offsets, by planes of bins and by what trunks read."""
STATE_BITS, STATE_LIMIT = 6, 8191
"""Those by a state of the flow are in 1/2**STATE_BITS bit for 2**exponent lattice units, one less at each level."""
WORTH_BITS = 16
"""How fine what a squared error is worth is known."""
SYNTHESIS_SIDE, SYNTHESIS_BITS = 11, 8
"""Side and unit of the kernels of the flow's adjoint, the coupling step left out."""
SHARE_256THS = 102
"""What is believed of a derivative: bins are moved all at once, and each move changes what others cost."""
COST_LIMIT = 100 * COST_UNIT
"""Most that is believed."""


@dataclass(frozen=True)
class _Draft:
    """A level of N tiles as it was coded.

    Attributes:
        low: Low-pass the prior read, [N, 3, h, w].
        parent: What the coarser level handed on.
        bins: [N, 9, h, w], like means and scales.
        means: What the prior said of them, in 1/8 bin.
        scales: Its scale indices.
    """

    low: Floats
    parent: ort.OrtValue | None
    bins: Integers
    means: Shorts
    scales: Shorts


def costs_elsewhere(planes: Floats, model: Model, codes: list[int], clock: Clock) -> tuple[Shorts, ...]:
    """What bins of N tiles cost elsewhere, as in `choice.Values`.

    Args:
        planes: [N, 3, H, W], on the lossy lattice.
        model: What encodes.
        codes: Quality code of each tile.
        clock: Where time goes.

    Returns:
        Of each level, finest first, in 1/256 bit, [N, 9, h, w]; 0 where the nearest bin is 0.
    """
    latent = analyse(planes, model, LOSSY_UNIT, clock)
    walk = Walk(model, codes, len(planes), len(latent.details), LOSSY_UNIT, clock, tied=False, held=False)
    sizes, steps = lattice.sizes_of(*latent.size), walk.low_steps()
    low = rebuild_lows([quantise(tile, own) for tile, own in zip(integers(latent.low), steps, strict=True)], steps)
    drafts, parent = [], None
    for level in reversed(range(len(latent.details))):
        details, handed_on, said = walk.encode_level(latent.details[level], level, low, parent, sizes[level])
        drafts.append(_Draft(low, parent, *_gathered(said, details.shape)))
        low, parent = walk.finer(low, details, level, sizes[level]), handed_on
    worths = model.tables.worths[codes]
    shown = _clipped((low - planes).astype(np.int64) * worths[:, 1, None, None, None], WORTH_BITS)
    with clock.room("flow"):
        shown = _colours_back(shown)
    finer, handed_on_back, result = np.zeros_like(shown), None, []
    for level, draft in enumerate(reversed(drafts)):
        exponents = worths[:, 0] - level
        with clock.room("flow"):
            (finer, by_finer), (shown, by_shown) = (_flow_back(state, model, level) for state in (finer, shown))
            widths = np.stack([own.channels(DETAILS).column for own in walk.steps(level)])
            points = [_shifted(own * widths, exponents + SYNTHESIS_BITS + 6) for own in (by_finer, by_shown)]
        by_planes, by_read, handed_on_back = _prior_back(draft, model, level, walk, sum(points), handed_on_back)
        with clock.room("flow"):
            finer = np.clip(finer + _read_back(by_read, finer.shape, model, level, codes, exponents), -STATE_LIMIT, STATE_LIMIT)
            each = zip(integers(latent.details[level]), by_planes, points[0], walk.steps(level), strict=True)
            result.append(np.stack([_costs(*tile, model.tables.squash) for tile in each]))
    return tuple(result)


def _gathered(said: Sequence[Sequence[Said]], shape: tuple[int, ...]) -> tuple[Integers, Shorts, Shorts]:
    """What passes of N tiles said -> bins, means and scale indices, [N, 9, h, w]."""
    bins, (means, scales) = np.empty(shape, np.int32), np.empty((2, *shape), np.int16)
    for number in range(PASSES):
        for target, of_tiles in zip((bins, means, scales), zip(*(own[number][:3] for own in said), strict=True), strict=True):
            place(target, number, np.stack(of_tiles))
    return bins, means, scales


def _shifted(values: NDArray[np.int64], bits: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Values over 2**bits, halves up; bits: of each tile, positive."""
    shift = np.asarray(bits, np.int64).reshape(-1, *(1,) * (values.ndim - 1)) if np.ndim(bits) else np.int64(bits)
    result: NDArray[np.int64] = (values + (np.int64(1) << shift >> 1)) >> shift
    return result


def _clipped(values: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    return np.clip(_shifted(values, bits), -STATE_LIMIT, STATE_LIMIT)


def _colours_back(state: NDArray[np.int64]) -> NDArray[np.int64]:
    """By blue, green and red -> by Y, Cg and Co, [N, 3, H, W]."""
    blue, green, red = np.moveaxis(state, 1, 0)
    total = blue + green + red
    cg = _shifted((LEAN_256THS - 128) * total, 8) + green
    return np.clip(np.stack([total, cg, (red - blue) >> 1], 1), -STATE_LIMIT, STATE_LIMIT)


def _flow_back(state: NDArray[np.int64], model: Model, level: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """By a state, [N, 3, H, W] -> by the low-pass below it, in the unit of its level, and by its details.

    Details' are in 1/2**(STATE_BITS + SYNTHESIS_BITS) for as many lattice units as the state's.
    """
    count, colours, height, width = state.shape
    rows, columns, reach = (height + 1) // 2, (width + 1) // 2, SYNTHESIS_SIDE // 2
    padded = np.zeros((colours, count, 2 * rows + 2 * reach - 1, 2 * columns + 2 * reach - 1), np.float32)
    padded[:, :, reach : reach + height, reach : reach + width] = state.swapaxes(0, 1)
    session, kernels = model.sessions["synthesis_back"], model.tables.synthesis[level]
    bands = np.empty((colours, count, 4, rows, columns), np.int64)
    for luma, own in ((0, slice(0, 1)), (1, slice(1, 3))):
        feeds = {"state": padded[own].reshape(-1, 1, *padded.shape[2:]), "kernel": kernels[luma]}
        bands[own] = session.run(["bands"], feeds)[0].reshape(bands[own].shape)
    low = _clipped(bands[:, :, 0].swapaxes(0, 1), SYNTHESIS_BITS + 1)
    details = bands[:, :, 1:].transpose(1, 2, 0, 3, 4).reshape(count, 9, rows, columns)
    return low, details


def _prior_back(
    draft: _Draft,
    model: Model,
    level: int,
    walk: Walk,
    points: NDArray[np.int64],
    handed_on_back: Floats | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """By points of a level, in 1/2**STATE_BITS bit for a bin -> by planes of bins, by what the trunk reads and by the
    parent."""
    with walk.clock.room("prior"):
        size = draft.bins.shape[2:]
        feeds = trunk_feeds(model, draft.low, draft.parent, level, walk.codes, LOSSY_UNIT)
        even = feeds["low"].shape()[2:]
        each = zip(draft.bins, draft.means, draft.scales, walk.tables(), strict=True)
        squash = model.tables.squash
        more = {
            "planes": np.concatenate([planes_of(draft.bins[:, list(bands)], squash) for bands in (LUMA, CHROMA)], 1),
            "said_back": np.stack([_said_back(*tile) for tile in each]),
            "offsets_back": np.clip(points >> 1, -LIMIT, LIMIT).astype(np.float32),
        }
        if handed_on_back is not None:
            more["handed_on_back"] = handed_on_back
        values = {name: on_device(_filled(value, even), model) for name, value in more.items()}
        values["planes"] = on_device(_filled(more["planes"], even, PLANES_READ), model)
        outputs = ["planes_back", "read_back", "parent_back"]
        found = model.prior_session("adjoint", level).run_with_ort_values(outputs, feeds | values)
        by_planes, by_read, by_parent = (own.numpy() for own in found)
        there = slice(None), slice(None), slice(size[0]), slice(size[1])
        return by_planes[there].astype(np.int64), by_read[there].astype(np.int64), by_parent


def _filled(values: Floats, size: tuple[int, int], channels: int | None = None) -> Floats:
    """With zeros below, to the right and as further channels."""
    count, own, height, width = values.shape
    result = np.zeros((count, channels or own, *size), np.float32)
    result[:, :own, :height, :width] = values
    return result


def _said_back(bins: Integers, means: Shorts, scales: Shorts, tables: Tables) -> Floats:
    """Bins of a tile, [9, h, w] -> by means and raw scale indices, luma's and then chroma's, [18, h, w].

    From what bins would cost with the mean an eighth, and the scale index one, lower and higher.
    """
    flat = bins.ravel(), means.ravel(), scales.ravel()
    last = np.int16(tables.choice.shape[0] - 1)
    by_mean = tables.costs(flat[0], flat[1] + np.int16(1), flat[2]) - tables.costs(flat[0], flat[1] - np.int16(1), flat[2])
    lower, higher = np.maximum(flat[2] - np.int16(1), np.int16(0)), np.minimum(flat[2] + np.int16(1), last)
    by_scale = tables.costs(flat[0], flat[1], higher) - tables.costs(flat[0], flat[1], lower)
    # A difference of two eighths of a bin in 1/256 bit; two scale indices, of which the raw one has a quarter.
    mean, scale = ((own.reshape(bins.shape) >> bits) for own, bits in ((by_mean, 6 - SAID_BITS), (by_scale, 7 - SAID_BITS)))
    parts = [own[list(bands)] for bands in (LUMA, CHROMA) for own in (mean, scale)]
    return np.clip(np.concatenate(parts), -LIMIT, LIMIT).astype(np.float32)


def _read_back(
    by_read: NDArray[np.int64], shape: tuple[int, ...], model: Model, level: int, codes: list[int], exponents: NDArray[np.int64]
) -> NDArray[np.int64]:
    """By activations that a trunk reads, [N, 6, h, w] -> by its low-pass, in the unit of that state."""
    tables = model.tables
    # Everything is a multiple of a power of two: doubles hold it exactly.
    unit = np.exp2(exponents - 1.0 + STATE_BITS - READ_BITS) * READ_UNIT / LOSSY_UNIT
    value = np.float64(tables.low_scales[model.rung(level, LOSSY_UNIT)]) / READ_UNIT
    edges = tables.edge_scales[codes, level].astype(np.float64)[:, :, None, None]
    back = (by_read[:, :3] * value + by_read[:, 3:] * edges) * unit[:, None, None, None]
    return np.clip(np.rint(back), -STATE_LIMIT, STATE_LIMIT).astype(np.int64)


def _costs(latent: Integers, by_planes: NDArray[np.int64], direct: NDArray[np.int64], steps: Steps, squash: Floats) -> Shorts:
    """What the next bin towards 0, in the place of the nearest, changes elsewhere, in 1/256 bit, [9, h, w].

    Args:
        latent: Details of a tile.
        by_planes: Derivatives by planes of its bins.
        direct: By points, for what finer levels read of them.
        steps: Of the level's 12 bands.
        squash: How planes are made of bins.
    """
    own = steps.channels(DETAILS)
    nearest = quantise(latent, own)
    sign, magnitude = np.sign(nearest), np.minimum(np.abs(nearest), squash.shape[1] - 1)
    size, linear = (table[magnitude] - table[np.maximum(magnitude - 1, 0)] for table in squash.astype(np.int64))
    result = np.empty(latent.shape, np.int64)
    for bands, first in ((LUMA, 0), (CHROMA, 9)):
        chosen, count = list(bands), len(bands)
        signed, absolute, straight = (by_planes[first + count * k : first + count * (k + 1)] for k in range(3))
        result[chosen] = sign[chosen] * (signed * size[chosen] + straight * linear[chosen]) + absolute * size[chosen]
    result = _shifted(result, 2 * PLANE_BITS - 8)
    distance = 64 + own.outward * (magnitude == 1)
    result = result + ((direct * sign * distance) >> (STATE_BITS + 6 - 8))
    taken = _shifted(-result * SHARE_256THS, 8)
    return np.clip(np.where(nearest == 0, 0, taken), -COST_LIMIT, COST_LIMIT).astype(np.int16)
