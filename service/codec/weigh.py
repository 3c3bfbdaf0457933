"""The step that finds out what bins of a patch cost elsewhere, and the costs of a whole picture.

Each patch is weighed as a picture of its own: what a bin costs beyond its sides is left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from service.codec import lattice
from service.codec.arrays import Bytes8, Floats, Shorts
from service.codec.artifact import Model
from service.codec.clock import Clock
from service.codec.elsewhere import costs_elsewhere
from service.codec.lattice import LOSSY_UNIT
from service.codec.steps import Run, Step, joined

PATCH = 768
"""Largest side of a patch in pixels, a multiple of 2**LEVELS. Less than a tile's: going back takes several times the
memory of coding."""
MOST_EFFORT = 2
"""How often a picture is weighed at most."""


@dataclass(frozen=True, eq=False)
class Weigh(Step[tuple[Shorts, ...]]):
    """Planes of a patch, [1, 3, H, W] -> what its bins cost elsewhere at a quality code, known: as in `elsewhere`."""

    op: ClassVar[str] = "weigh"
    model: Model
    planes: Floats
    code: int
    known: tuple[Shorts, ...] | None

    @property
    def key(self) -> Hashable:
        """Model, size and whether costs are known, not the code."""
        return self.op, self.model.id, self.planes.shape, self.known is None

    @property
    def pixels(self) -> int:
        """Pixels of the patch."""
        return int(self.planes[0, 0].size)

    @classmethod
    def together(cls, steps: Sequence[Self], clock: Clock) -> list[tuple[Shorts, ...]]:
        """As in Step."""
        planes, codes = joined([s.planes for s in steps]), [s.code for s in steps]
        levels = zip(*(s.known for s in steps if s.known is not None), strict=True)
        known = None if steps[0].known is None else [joined(own) for own in levels]
        costs = costs_elsewhere(planes, steps[0].model, codes, clock, known)
        return [tuple(level[i : i + 1] for level in costs) for i in range(len(steps))]


def weighed(pixels: Bytes8, code: int, run: Run, effort: int) -> tuple[Shorts, ...]:
    """What bins of a picture cost elsewhere.

    Args:
        pixels: [H, W, 3].
        code: Quality code.
        run: What runs.
        effort: How often it is weighed, at least once.

    Returns:
        Of each level, finest first, in 1/256 bit, [9, h, w].
    """
    size = (pixels.shape[0], pixels.shape[1])
    result = tuple(np.zeros((9, *own), np.int16) for own in lattice.sizes_of(*size)[1:])
    for patch in lattice.tiles_of(*size, PATCH):
        area = patch.area(0)
        with run.clock.room("image"):
            planes = lattice.to_planes(pixels[area.top : area.bottom, area.left : area.right], LOSSY_UNIT)
        costs = None
        for _ in range(effort):
            costs = run.step(Weigh(run.model, planes, code, costs))
        for level, own in enumerate(costs or ()):
            patch.area(level + 1).of(result[level])[:] = own[0]
    return result
