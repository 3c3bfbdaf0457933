"""Pixels that were clipped when they were decoded -> planes as they were before.

Decoding clips to 0 ... 255, and what overshot is lost to whoever encodes the picture again: the latent he sees is off
by more than bins allow for, and quality would fall with every generation. So an encoder that recognises its own
output, because many pixels come out exactly as they went in, looks for planes that are both: what a decoder can have,
and within half a grey level of every pixel, or anywhere beyond a saturated one. Each round drafts what a decoder would
have of the planes sought, and moves these by how much that lies outside; as a rule it ends with the very latent the
picture was decoded from, and else with one close by. A wrong bin at a coarse level moves whole regions: where a draft
is suddenly much worse, the search goes back to the best. So that what is not found does not grow from generation to
generation, late rounds do not look far beyond saturated pixels.

Sources: J. Douglas and H. Rachford, "On the Numerical Solution of Heat Conduction Problems in Two and Three Space
Variables", 1956; V. Elser, I. Rankenburg and P. Thibault, "Searching with iterated maps", PNAS 104(2), 2007.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from service.codec import container, lattice
from service.codec.arrays import Bytes8, Integers, Planes, Shorts

RECOGNISED_SHARE = 0.08
"""Share of the unsaturated pixels that must come out unchanged for a picture to pass for the encoder's own output:
of other photographs one or two in a hundred do at quality 75. A picture taken for it by mistake costs time only."""
LAST_CODE = container.code_of(90)
"""Above quality 90 bins are too narrow to survive the rounding of pixels, clipped or not."""
ROUNDS = 32
"""Most drafts."""
FAR_ROUNDS = 12
"""Drafts before those that are kept near saturated pixels: enough to find most of what is found at all."""
LOST = 4
"""A draft that differs so many times as much as the best has lost its way: the search goes back to that, once."""
NEAR_BINS = 2
"""How far beyond saturated pixels later drafts look, in bins of the finest details."""
PATIENCE = 12
"""Most drafts in a row of which none is better."""
MOST_STUCK = 32
"""Rounds after which what stays outside weighs no more."""
LIMIT = 2**15 - 1
"""Planes are kept within this."""
BAND = 256
"""Rows worked on at a time."""


def saturated(pixels: Bytes8) -> NDArray[np.bool_]:
    """Which pixels, [H, W], have a channel at either end."""
    ends: NDArray[np.bool_] = ((pixels == 0) | (pixels == 255)).any(-1)
    return ends


def recover(
    decoded: Planes,
    pixels: Bytes8,
    unit: int,
    bin_width: int,
    show: Callable[[Planes], Bytes8],
    draft: Callable[[Shorts], Planes],
) -> Shorts | None:
    """Look for planes that a decoder can have and that show the given pixels.

    Args:
        decoded: What a decoder has of the pixels encoded as they are, lossy, [1, 3, H, W].
        pixels: [H, W, 3].
        unit: Lattice units in a grey level.
        bin_width: Of the finest details, in lattice units.
        show: Planes -> the pixels a decoder shows.
        draft: Planes -> those a decoder would have, nothing priced; its own come out as they were.

    Returns:
        Those whose pixels differ least; None if it is the given ones or if this is not the encoder's own output.
    """
    differences, clear = _differences(decoded, pixels, show), ~saturated(pixels)
    if clear.all() or (differences[clear] == 0).sum() < max(1, RECOGNISED_SHARE * clear.sum()):
        return None
    best, least, since = None, differences.sum(), 0
    search, latest, returned = _Search(pixels, unit), shorts(decoded), 0
    for number in range(ROUNDS):
        if least == 0 or since == PATIENCE:
            break
        far = number < FAR_ROUNDS or returned
        latest = shorts(draft(search.next(latest, LIMIT if far else NEAR_BINS * bin_width)))
        left, since = _differences(latest, pixels, show).sum(), since + 1
        if left < least:
            best, least, since = latest, left, 0
        elif best is not None and left > LOST * least and least != returned:
            latest, returned = best, least
            search.go_back(best)
    return best


class _Search:
    """The planes sought.

    Args:
        pixels: What they should show, [H, W, 3].
        unit: Lattice units in a grey level.
    """

    def __init__(self, pixels: Bytes8, unit: int) -> None:
        self._pixels, self._unit = pixels, unit
        self._sought, self._last = shorts(lattice.to_planes(pixels, unit)), np.empty(0, np.int16)
        self._stuck = np.zeros(self._sought.shape, np.int16)

    def go_back(self, decoded: Shorts) -> None:
        """Begin anew from what a decoder has of an earlier draft."""
        self._sought, self._last = decoded.copy(), np.empty(0, np.int16)
        self._stuck[:] = 0

    def next(self, decoded: Shorts, beyond: int) -> Shorts:
        """The planes to draft next, at most so far beyond saturated pixels, given what a decoder has of those before.

        Sought planes become what a decoder has, plus how far these reflected in it lie outside; that grows round by
        round until a bin changes. Where nothing has changed for a while, it grows faster.
        """
        last = self._last if self._last.size else decoded
        for top in range(0, len(self._pixels), BAND):
            rows = np.s_[:, :, top : top + BAND]
            has, stuck = decoded[rows].astype(np.int32), self._stuck[rows]
            low, high = _bounds(self._pixels[top : top + BAND], self._unit, beyond)
            outside = np.clip(has, low, high) - has
            stuck[:] = np.where((outside != 0) & (decoded[rows] == last[rows]), np.minimum(stuck + 1, MOST_STUCK), 0)
            reflected = 2 * has - self._sought[rows]
            moved = np.clip(reflected, low, high) - reflected + outside * stuck
            self._sought[rows] = shorts(has + moved)
        self._last = decoded
        return self._sought


def shorts(planes: Planes | Integers) -> Shorts:
    """Planes in 16 bits, which end half a thousand grey levels from the middle."""
    return np.clip(planes, -LIMIT, LIMIT).astype(np.int16)


def _bounds(pixels: Bytes8, unit: int, beyond: int = LIMIT) -> tuple[Integers, Integers]:
    """Least and greatest values that show some pixels, [1, 3, H, W], at most so far beyond saturated ones.

    Half grey levels show as the even one.
    """
    middle = lattice.to_planes(pixels, unit).astype(np.int32)
    reach = unit // 2 - middle // unit % 2
    black, white = -lattice.CENTRE * unit, (255 - lattice.CENTRE) * unit
    low = np.where(middle == black, max(black - beyond, -LIMIT), middle - reach)
    return low, np.where(middle == white, min(white + beyond, LIMIT), middle + reach)


def _differences(planes: Planes, pixels: Bytes8, show: Callable[[Planes], Bytes8]) -> Integers:
    """Squared differences between what planes show and some pixels, [H, W]."""
    differences = np.empty(pixels.shape[:2], np.int32)
    for top in range(0, len(pixels), BAND):
        rows = pixels[top : top + BAND]
        difference = show(planes[:, :, top : top + BAND]).astype(np.int32) - rows
        differences[top : top + BAND] = (difference * difference).sum(-1)
    return differences
