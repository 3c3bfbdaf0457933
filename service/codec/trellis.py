"""Which bins of a pass have a parity that follows from those of others: the lattice that lossy bins lie on.

Bins of a common width, each chosen for itself, are points of a cubic lattice. If parities must be a word of a
convolutional code, the points left lie in a denser arrangement: at equal distortion each bin costs up to 0.14 bit less.
The bins of a pass that the prior is unsure of are laid out, by their scale indices, in chains of groups; the last bin
of each group is a check. Its parity makes the bits of a register even, and so it need not be coded. Decoders compute
the parities of all checks from all other bins at once.

Sources: M. Marcellin and T. Fischer, "Trellis coded quantization of memoryless and Gauss-Markov sources", IEEE Trans.
Commun. 38(1), 1990; G. D. Forney, "Coset codes", IEEE Trans. Inf. Theory 34(5), 1988.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Integers, Shorts

CLASSES = ((12, 8), (16, 5), (20, 4), (24, 3))
"""First scale index of each class of bins, and how many of them make a group. Bins below the first class are free."""
TAPS = np.array([11, 15, 13, 9, 15, 11, 15, 1])
"""What each bin of a group adds to the register where it is odd; the last one is the check's. Groups of n bins begin
with the first n - 1. Found by trying: no other tap at any place left less distortion of uniform values."""
REGISTER_BITS = 4
GROUPS = 16
"""Most groups in a chain."""
WIDTH = len(TAPS)


@dataclass(frozen=True)
class Trellis:
    """The chains of one pass of one tile.

    Attributes:
        places: Of the bins among those of the pass, -1 where there is none, [GROUPS, WIDTH, chains]; the last of each
            group is its check. Long groups come first.
        checks: Places of all checks, ascending.
    """

    places: NDArray[np.intp]
    checks: NDArray[np.intp] = field(init=False)
    _order: NDArray[np.intp] = field(init=False)

    def __post_init__(self) -> None:
        last = self.places[:, -1].ravel()
        order = np.argsort(last, kind="stable")[np.count_nonzero(last < 0) :]
        object.__setattr__(self, "checks", last[order])
        object.__setattr__(self, "_order", order)

    @classmethod
    def of(cls, scales: Shorts) -> Trellis:
        """Lay out the bins of a pass by their scale indices as the prior says them, flat.

        The bins of a class, narrow ones first and in the order of the pass where scale indices are equal, go to its
        chains in turn.
        """
        tied = np.flatnonzero(scales >= CLASSES[0][0])
        own_scales = scales[tied]
        sorting = np.argsort(own_scales, kind="stable")
        order = tied[sorting]
        ends = [*np.searchsorted(own_scales[sorting], [first for first, _ in CLASSES]).tolist(), len(order)]
        blocks = []
        for (_, size), begin, end in zip(CLASSES, ends, ends[1:], strict=False):
            chains = -(-(end - begin) // (GROUPS * size))
            own = np.full(GROUPS * size * chains, -1)
            own[: end - begin] = order[begin:end]
            block = np.full((GROUPS, WIDTH, chains), -1)
            block[:, [*range(size - 1), -1]] = own.reshape(GROUPS, size, chains)
            blocks.append(block)
        return cls(np.concatenate(blocks, 2))

    def parities(self, bins: Integers) -> Integers:
        """The parities of the checks that the other bins of the pass, flat, leave them; in the order of `checks`."""
        return self.asked(self.odd(bins)).ravel()[self._order]

    def asked(self, odd: Integers) -> Integers:
        """Parities of the checks, [GROUPS, chains], that bins as `odd` gives them ask for; their own are not read."""
        added: Integers = np.bitwise_xor.reduce(odd[:, :-1] * TAPS[:-1, None].astype(np.int32), axis=1)
        register, asked = np.zeros(odd.shape[2], np.int32), np.empty_like(added)
        for group, own in enumerate(added):
            register ^= own
            asked[group] = register & 1
            register >>= 1  # the check makes the last bit 0
        return asked

    def odd(self, bins: Integers) -> Integers:
        """1 for odd bins, 0 for even ones and where there is none, [GROUPS, WIDTH, chains]."""
        return np.where(self.places < 0, np.int32(0), bins[self.places] & 1)
