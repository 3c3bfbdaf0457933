"""Pixels that were clipped when they were decoded -> planes as they were before.

Decoding clips to 0 ... 255, and what overshot is lost to whoever encodes the picture again: the latent he sees is off
by more than bins allow for, and quality would fall with every generation. So an encoder that recognises its own
output, because many pixels come out exactly as they went in, looks for planes that are both: what a decoder can have,
and within half a grey level of every pixel, or anywhere beyond a saturated one. Each round drafts what a decoder would
have of the planes sought, and moves these by how much that lies outside; as a rule it ends with the very latent the
picture was decoded from, and else with one close by.

How many pixels differ tells whether all coarse bins are right: the networks read these, and one that is wrong, even
where everything is saturated, moves one pixel in a hundred by a grey level. How far values lie outside tells how many
fine ones are right. Where a draft is suddenly much worse in either, the search goes back to the best.

Where bins are wide, what lies outside is mostly what clipping took away, far more than any bin that is wrong: the first
drafts then ask for a part of it only, and at low qualities most searches end with the first of them.

Sources: J. Douglas and H. Rachford, "On the Numerical Solution of Heat Conduction Problems in Two and Three Space
Variables", 1956; V. Elser, I. Rankenburg and P. Thibault, "Searching with iterated maps", PNAS 104(2), 2007.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.codec import container, lattice
from service.codec.arrays import Bytes8, Integers, Planes, Shorts

RECOGNISED_SHARE = 0.08
"""Share of the unsaturated pixels that must come out unchanged for a picture to pass for the encoder's own output:
of other photographs one or two in a hundred do at quality 75. A picture taken for it by mistake costs time only."""
LAST_CODE = container.code_of(90)
"""Above quality 90 bins are too narrow to survive the rounding of pixels, clipped or not."""
SEARCHES = ((4, 20), (2, 32))
"""How far beyond saturated pixels planes are sought, in bins of the finest details, and most drafts: first as far as
decoded photographs go (3.4 bins were seen, at most one sample in ten thousand beyond 2), then, if nothing is found,
anew and nearer, since what is not found drifts the less from generation to generation, the nearer the limit."""
MOSTLY = 1 / 3
"""Share of saturated pixels from which planes are hardly ever found: then they are sought nearby only."""
WIDE = 12
"""Width of the finest bins, in grey levels, from which a search begins gently."""
GENTLE, FIRM = (0.6, 0.7, 0.8), (1.0,) * 6
"""Share of what is to move that each of its first drafts asks for, where bins are wide and elsewhere; nothing is asked
for louder as yet. At quality 10 most searches end with the first gentle draft, at 25 with the second."""
FOUND = 100
"""By what factor fewer differences than before any search are as good as none."""
PLATEAU = 4
"""Factor in differing pixels from which one draft is better or worse than another, however far values lie outside."""
ASTRAY = 3
"""Factor in how far values lie outside by which a draft has lost its way."""
POLISH = 6
"""Drafts at the end where no search found anything: values outside push as far as they are and no further, which rights
nearly all fine bins and leaves some coarse ones wrong."""
HOPELESS = 4
"""Drafts that all differ more than no search at all: this is not the encoder's own output, or it was coded at another
quality. Of its own the second differs less, as a rule."""
PATIENCE = 14
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
    first = int(differences.sum())
    if first == 0:
        return None
    first_shares = GENTLE if bin_width >= WIDE * unit else FIRM
    for reach_bins, rounds in SEARCHES if clear.mean() > 1 - MOSTLY else SEARCHES[1:]:
        search = _Search(pixels, unit, reach_bins * bin_width, show, first_shares)
        nearest = search.nearest(shorts(decoded), first, rounds, draft)
        if nearest is None:
            return None
        best = nearest
        if best.differences * FOUND <= first:
            return best.planes
    return search.polished(best, draft).planes


@dataclass(frozen=True)
class _Draft:
    """What a decoder would have of planes sought.

    Attributes:
        planes: [1, 3, H, W].
        differences: From the pixels they should show, squared and added up.
        outside: How far they lie outside their bounds, squared and added up, in lattice units.
    """

    planes: Shorts
    differences: int
    outside: int

    def better_than(self, other: _Draft) -> bool:
        """Whether this is nearer to what is sought."""
        if self.differences * PLATEAU < other.differences:
            return True
        return self.differences <= other.differences * PLATEAU and self.outside < other.outside

    def lost_from(self, other: _Draft) -> bool:
        """Whether this is so much worse that it pays to begin anew there."""
        return self.differences > other.differences * PLATEAU or self.outside > other.outside * ASTRAY


class _Search:
    """The planes sought.

    Args:
        pixels: What they should show, [H, W, 3].
        unit: Lattice units in a grey level.
        reach: How far beyond saturated pixels to look, in lattice units.
        show: Planes -> the pixels a decoder shows.
        first_shares: Share of what is to move that each of the first drafts asks for, none louder than the last.
    """

    def __init__(
        self,
        pixels: Bytes8,
        unit: int,
        reach: int,
        show: Callable[[Planes], Bytes8],
        first_shares: Iterable[float] = (),
    ) -> None:
        self._pixels, self._unit, self._reach, self._show = pixels, unit, reach, show
        self._first_shares = iter(first_shares)
        self._sought, self._last = shorts(lattice.to_planes(pixels, unit)), np.empty(0, np.int16)
        self._stuck = np.zeros(self._sought.shape, np.int16)

    def nearest(self, latest: Shorts, first: int, rounds: int, draft: Callable[[Shorts], Planes]) -> _Draft | None:
        """The draft that differs least from the pixels, if by less than `first`; at most so many are made."""
        best = nearest = None
        since, worse, returned = 0, 0, False
        for made in range(rounds):
            if since == PATIENCE or worse == made == HOPELESS:
                break
            if nearest is not None and nearest.differences == 0:
                break
            found, since = self._judged(shorts(draft(self.next(latest)))), since + 1
            worse += found.differences > first
            latest = found.planes
            if found.differences < (first if nearest is None else nearest.differences):
                nearest = found
            if best is None or found.better_than(best):
                best, since, returned = found, 0, False
            elif found.lost_from(best) and not returned:
                latest, returned = best.planes, True
                self.go_back(latest)
        return nearest

    def polished(self, best: _Draft, draft: Callable[[Shorts], Planes]) -> _Draft:
        """A draft that differs less than the best of a search, begun anew there, with nothing asked for louder."""
        latest = best.planes
        self.go_back(latest)
        for _ in range(POLISH):
            found = self._judged(shorts(draft(self.next(latest))))
            self._stuck[:] = 0
            latest = found.planes
            if found.differences < best.differences:
                best = found
        return best

    def _judged(self, planes: Shorts) -> _Draft:
        return _Draft(planes, int(_differences(planes, self._pixels, self._show).sum()), self.outside(planes))

    def go_back(self, decoded: Shorts) -> None:
        """Begin anew from what a decoder has of an earlier draft."""
        self._sought, self._last = decoded.copy(), np.empty(0, np.int16)
        self._stuck[:] = 0

    def next(self, decoded: Shorts) -> Shorts:
        """The planes to draft next, given what a decoder has of those before.

        Sought planes become what a decoder has, plus how far these reflected in it lie outside; that grows round by
        round until a bin changes. Where nothing has changed for a while, it grows faster. The first drafts only ask for
        their share of it, so that it grows slowly and, where shares are below 1, not without end.
        """
        last = self._last if self._last.size else decoded
        share = next(self._first_shares, None)
        for rows, low, high in self._banded():
            has, stuck = decoded[rows].astype(np.int32), self._stuck[rows]
            outside = np.clip(has, low, high) - has
            stuck[:] = np.where((outside != 0) & (decoded[rows] == last[rows]), np.minimum(stuck + 1, MOST_STUCK), 0)
            reflected = 2 * has - self._sought[rows]
            moved = np.clip(reflected, low, high) - reflected
            moved = moved + outside * stuck if share is None else (moved * share).astype(np.int32)
            self._sought[rows] = shorts(has + moved)
        self._last = decoded
        return self._sought

    def outside(self, decoded: Shorts) -> int:
        """How far what a decoder has lies outside the bounds, squared and added up, in lattice units."""
        total = 0
        for rows, low, high in self._banded():
            has = decoded[rows].astype(np.int32)
            total += int(np.square(np.clip(has, low, high) - has, dtype=np.int64).sum())
        return total

    def _banded(self) -> Iterator[tuple[tuple[slice, ...], Integers, Integers]]:
        """Rows, and the least and greatest values there."""
        for top in range(0, len(self._pixels), BAND):
            yield np.s_[:, :, top : top + BAND], *bounds_of(self._pixels[top : top + BAND], self._unit, self._reach)


def shorts(planes: Planes | Integers) -> Shorts:
    """Planes in 16 bits, which end half a thousand grey levels from the middle."""
    return np.clip(planes, -LIMIT, LIMIT).astype(np.int16)


def bounds_of(pixels: Bytes8, unit: int, reach: int) -> tuple[Integers, Integers]:
    """Least and greatest values that show some pixels, [1, 3, H, W], at most `reach` beyond saturated ones.

    Half grey levels show as the even one.
    """
    middle = lattice.to_planes(pixels, unit).astype(np.int32)
    half = unit // 2 - middle // unit % 2
    black, white = -lattice.CENTRE * unit, (255 - lattice.CENTRE) * unit
    low = np.where(middle == black, max(black - reach, -LIMIT), middle - half)
    return low, np.where(middle == white, min(white + reach, LIMIT), middle + half)


def _differences(planes: Planes, pixels: Bytes8, show: Callable[[Planes], Bytes8]) -> Integers:
    """Squared differences between what planes show and some pixels, [H, W]."""
    differences = np.empty(pixels.shape[:2], np.int32)
    for top in range(0, len(pixels), BAND):
        rows = pixels[top : top + BAND]
        difference = show(planes[:, :, top : top + BAND]).astype(np.int32) - rows
        differences[top : top + BAND] = (difference * difference).sum(-1)
    return differences
