"""How far the prior's scale indices are off for one tile: a shift for each level and colour, said in the stream.

The prior knows what pictures are like on average. Where one has more or less detail than it foretells, all scale
indices of a level are off by about as much. The encoder tries a few shifts once the bins are chosen, and the one
that codes them in the fewest bits goes into the head of the level's part, one byte a level.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.codec.arrays import Integers, Shorts
from service.codec.entropy import Tables
from service.codec.errors import CorruptStreamError

Said = tuple[Integers, Shorts, Shorts]
"""Bins of a pass, what the prior said of their means (1/8 bin) and of their scale indices; flat, of equal length."""

LIMIT = 7
"""Largest |shift|: luma's and chroma's fit into one byte."""
SAMPLE = 2**13
"""So many bins of a pass, evenly spread, decide."""


def shifted(scales: Shorts, shift: int, tables: Tables) -> Shorts:
    """Scale indices moved by a shift, within those there are."""
    return np.clip(scales + np.int16(shift), 0, np.int16(len(tables.choice) - 1)) if shift else scales


def cheapest(passes: Sequence[Said], tables: Tables) -> int:
    """The shift that codes the bins of some passes in the fewest bits: up or down from 0 as long as that pays."""
    thinned = [tuple(values[:: -(-len(values) // SAMPLE) or 1] for values in said) for said in passes]
    bins, means, scales = (np.concatenate(values) for values in zip(*thinned, strict=True))
    if not len(bins):
        return 0

    def cost(shift: int) -> int:
        return int(tables.costs(bins, means, shifted(scales, shift, tables)).sum(dtype=np.int64))

    best, least = 0, cost(0)
    for direction in (1, -1):
        while abs(best + direction) <= LIMIT and (found := cost(best + direction)) < least:
            best, least = best + direction, found
        if best:
            break
    return best


def write_shifts(luma: int, chroma: int) -> bytes:
    """The byte of a level."""
    return bytes([(luma + LIMIT + 1) * 16 + chroma + LIMIT + 1])


def read_shifts(part: bytes, levels: int) -> list[tuple[int, int]]:
    """The head of a part -> luma's and chroma's shift of each of its levels.

    Raises:
        CorruptStreamError: No encoder writes this.
    """
    shifts = [(byte // 16 - LIMIT - 1, byte % 16 - LIMIT - 1) for byte in part[:levels]]
    if len(shifts) < levels or any(min(pair) < -LIMIT for pair in shifts):
        raise CorruptStreamError("the head of a section is impossible; the stream is damaged")
    return shifts
