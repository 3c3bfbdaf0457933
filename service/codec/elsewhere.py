"""What a bin costs elsewhere: the derivative of rate and distortion by each bin, through the whole codec. Encoder only.

An encoder that weighs a bin's own bits and distortion leaves out what follows from it: heads read it when they say what
later bins cost, dequantisers when they place points, and finer levels a low-pass that it is part of. Here N tiles are
coded once, and what came of it is followed back (`adjoint`), finest level first:

    shown less wanted -> flow -> points -> dequantiser --+
                                                         +--> trunk -> low-pass and parent of the coarser level
                 bits of later bins -> heads ------------+
                                                         +--> bins

That tells of every bin what the next one towards 0 would change elsewhere, to first order; `choice` takes it from
there. Chosen so, bins can be followed back once more.

Sources: J. Campos et al., "Content Adaptive Optimization for Neural Image Compression", CVPR workshops 2019; Y. Yang et
al., "Improving Inference for Neural Image Compression", NeurIPS 2020: what is searched for each picture there by
hundreds of gradient steps on its latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from service.codec import lattice
from service.codec.adjoint import (
    PLANE_BITS,
    STATE_BITS,
    SYNTHESIS_BITS,
    Wide,
    clipped,
    colours_back,
    flow_back,
    prior_back,
    read_back,
    said_back,
    shifted,
)
from service.codec.arrays import Bytes8, Floats, Integers, Shorts
from service.codec.artifact import Model
from service.codec.calibration import Said
from service.codec.clock import Clock
from service.codec.coder_tables import COST_UNIT
from service.codec.lattice import LOSSY_UNIT
from service.codec.prior import CHROMA, LUMA, PASSES, place, trunk_feeds
from service.codec.quantise import STEP_UNIT, Steps, quantise
from service.codec.tile import analyse, rebuild_lows
from service.codec.walk import DETAILS, Walk, integers

WORTH_BITS = 16
"""What an error costs is in 1/2**(STATE_BITS + WORTH_BITS) bit."""
COST_BITS, PLANE_UNIT_BITS, BIN_BITS = COST_UNIT.bit_length() - 1, 4, 6
"""Costs are in 1/2**COST_BITS bit, planes of bins in 1/2**PLANE_UNIT_BITS, outward shifts in 1/2**BIN_BITS bin."""
FIRST_SHARE, KEPT_SHARE, NEW_SHARE = 110, 154, 77
"""What is believed of the first derivative, kept of costs that are known and believed of another derivative, in 1/256:
bins are moved all at once, and each move changes what others cost."""
COST_LIMIT = 100 * COST_UNIT
"""Most that is believed."""


@dataclass(frozen=True)
class _Draft:
    """A level of N tiles as it was coded.

    Attributes:
        feeds: What the trunk reads.
        bins: [N, 9, h, w], like means and scales.
        means: What the prior said of them, in 1/8 bin.
        scales: Its scale indices.
    """

    feeds: dict[str, ort.OrtValue]
    bins: Integers
    means: Shorts
    scales: Shorts


def costs_elsewhere(
    planes: Floats, model: Model, codes: list[int], clock: Clock, known: Sequence[Shorts] | None = None
) -> tuple[Shorts, ...]:
    """What bins of N tiles cost elsewhere, as in `choice.Values`.

    Args:
        planes: [N, 3, H, W], on the lossy lattice.
        model: What encodes.
        codes: Quality code of each tile.
        clock: Where time goes.
        known: Costs to choose bins by and to go on from, as they were returned.

    Returns:
        Of each level, finest first, in 1/256 bit, [N, 9, h, w]; 0 where the nearest bin is 0.
    """
    latent = analyse(planes, model, LOSSY_UNIT, clock)
    walk = Walk(model, codes, len(planes), len(latent.details), LOSSY_UNIT, clock, tied=False, held=False)
    sizes, steps = lattice.sizes_of(*latent.size), walk.low_steps()
    low = rebuild_lows([quantise(tile, own) for tile, own in zip(integers(latent.low), steps, strict=True)], steps)
    drafts: list[_Draft] = []
    parent = None
    for level in reversed(range(len(latent.details))):
        feeds = trunk_feeds(model, low, parent, level, codes, LOSSY_UNIT)
        own = None if known is None else known[level]
        details, parent, said = walk.encode_level(latent.details[level], level, low, parent, sizes[level], own)
        drafts.append(_Draft(feeds, *_gathered(said, details.shape)))
        low = walk.finer(low, details, level, sizes[level])
    worths = model.tables.worths[codes]
    with clock.room("flow"):
        error = (low - planes).astype(np.int64) * worths[:, 1, None, None, None]
        shown = colours_back(clipped(shifted(error, WORTH_BITS)))
    read, handed_on, result = np.zeros_like(shown), None, []
    for level, draft in enumerate(reversed(drafts)):
        exponents, each_step = worths[:, 0] - level, walk.steps(level)
        with clock.room("flow"):
            # Finer levels read a low-pass that bins are part of; what is shown tells of points alone.
            (read, of_read), (shown, of_shown) = (flow_back(state, model, level) for state in (read, shown))
            widths = np.stack([own.channels(DETAILS).column for own in each_step])
            bits = exponents + SYNTHESIS_BITS + STEP_UNIT.bit_length() - 1
            direct, others = (shifted(own * widths, bits) for own in (of_read, of_shown))
        with clock.room("prior"):
            tiles = zip(draft.bins, draft.means, draft.scales, walk.tables(), strict=True)
            said_by = np.stack([said_back(*tile) for tile in tiles])
            by_planes, by_read, handed_on = prior_back(
                draft.feeds, draft.bins, said_by, direct + others, handed_on, model, level
            )
        with clock.room("flow"):
            read = clipped(read + read_back(by_read, model, level, codes, exponents - 1))
            each = zip(integers(latent.details[level]), by_planes, direct, each_step, strict=True)
            changes = np.stack([_changes(*tile, model.tables.squash) for tile in each])
            result.append(_believed(changes, None if known is None else known[level]))
    return tuple(result)


def _gathered(said: Sequence[Sequence[Said]], shape: tuple[int, ...]) -> tuple[Integers, Shorts, Shorts]:
    """What passes of N tiles said -> bins, means and scale indices, [N, 9, h, w]."""
    bins, (means, scales) = np.empty(shape, np.int32), np.empty((2, *shape), np.int16)
    for number in range(PASSES):
        place(bins, number, np.stack([tile[number].bins for tile in said]))
        place(means, number, np.stack([tile[number].means for tile in said]))
        place(scales, number, np.stack([tile[number].scales for tile in said]))
    return bins, means, scales


def _changes(latent: Integers, by_planes: Wide, direct: Wide, steps: Steps, squash: Bytes8) -> Wide:
    """What the next bin towards 0, in the place of the nearest, changes elsewhere, in 1/256 bit, [9, h, w].

    Args:
        latent: Details of a tile.
        by_planes: Derivatives by planes of its bins.
        direct: By its points, for what finer levels read of them.
        steps: Of the level's 12 bands.
        squash: How planes are made of bins.
    """
    own = steps.channels(DETAILS)
    nearest = quantise(latent, own)
    sign, magnitude = np.sign(nearest).astype(np.int64), np.minimum(np.abs(nearest), squash.shape[1] - 1)
    size, linear = (table[magnitude] - table[np.maximum(magnitude - 1, 0)] for table in squash.astype(np.int64))
    of_planes, first = np.empty(latent.shape, np.int64), 0
    for bands in (list(LUMA), list(CHROMA)):
        signed, absolute, straight = np.split(by_planes[first : first + 3 * len(bands)], 3)
        of_planes[bands] = sign[bands] * (signed * size[bands] + straight * linear[bands]) + absolute * size[bands]
        first += 3 * len(bands)
    distance = sign * (2**BIN_BITS + own.outward * (magnitude == 1))
    back = shifted(of_planes, PLANE_BITS + PLANE_UNIT_BITS - COST_BITS)
    return -(back + shifted(direct * distance, STATE_BITS + BIN_BITS - COST_BITS))


def _believed(changes: Wide, known: Shorts | None) -> Shorts:
    """What bins would change, and what they are known to cost -> what they cost, from now on."""
    believed = changes * FIRST_SHARE if known is None else known.astype(np.int64) * KEPT_SHARE + changes * NEW_SHARE
    return np.clip(shifted(believed, 8), -COST_LIMIT, COST_LIMIT).astype(np.int16)
