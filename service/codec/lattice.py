"""Pixels <-> integer planes: centring, padding to even sides, tiles.

The lattice has 64 units in a grey level for lossy streams and 1 for lossless ones. (With 8 units the rounding of
the lifting steps moved deep coefficients by a good part of a step from one generation to the next.) Planes are blue,
green, red, as the flow's colour step wants them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Bytes8, Floats, Number, Planes

LOSSY_UNIT, LOSSLESS_UNIT = 64, 1
READ_UNIT = 8
"""The prior reads the low-pass in units of at most 1/8 grey level."""
CENTRE = 128
LEAN_256THS = 43
"""How much of Cg the flow's colour step takes from Y in lossy streams, in 1/256."""
TILE = 1024
"""Largest side of a tile in pixels."""
LEVELS = 6
SMALLEST_LOW = 8
"""Levels are added until the low-pass is at most this long."""


@dataclass(frozen=True)
class Area:
    """Rows top ... bottom - 1 and columns left ... right - 1 of a state."""

    top: int
    left: int
    bottom: int
    right: int

    def grown(self, margin: int, size: tuple[int, int]) -> Area:
        """With a margin on all sides, as far as the state goes."""
        bottom, right = min(self.bottom + margin, size[0]), min(self.right + margin, size[1])
        return Area(max(self.top - margin, 0), max(self.left - margin, 0), bottom, right)

    def doubled(self, size: tuple[int, int]) -> Area:
        """What the flow makes this area of, in a finer state of the given size."""
        return Area(2 * self.top, 2 * self.left, min(2 * self.bottom, size[0]), min(2 * self.right, size[1]))

    def within(self, outer: Area) -> Area:
        """The same area, counted from the corner of another."""
        top, left = outer.top, outer.left
        return Area(self.top - top, self.left - left, self.bottom - top, self.right - left)

    def of(self, state: NDArray[Number]) -> NDArray[Number]:
        """The area of a state, [..., H, W]; not copied."""
        return state[..., self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True)
class Tile:
    """A rectangle of a picture whose bins are coded on their own."""

    top: int
    left: int
    height: int
    width: int

    def area(self, halvings: int) -> Area:
        """Of the tile in the state after so many halvings."""
        bottom, right = -(-(self.top + self.height) >> halvings), -(-(self.left + self.width) >> halvings)
        return Area(self.top >> halvings, self.left >> halvings, bottom, right)


def tiles_of(height: int, width: int, side: int | None = None) -> list[Tile]:
    """Cut a picture into tiles of at most side x side (TILE if none is named), row by row."""
    side = side or TILE
    return [
        Tile(top, left, min(side, height - top), min(side, width - left))
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]


def levels_of(height: int, width: int) -> int:
    """Number of levels of a picture: halvings until its longer side is at most SMALLEST_LOW, at most LEVELS."""
    return min(LEVELS, max(0, (max(height, width) - 1).bit_length() - (SMALLEST_LOW - 1).bit_length()))


def sizes_of(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width of the state at every level: the picture's first, the coarsest low-pass last."""
    sizes = [(height, width)]
    for _ in range(levels_of(height, width)):
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    return sizes


def to_planes(pixels: Bytes8, unit: int) -> Floats:
    """Pixels [H, W, 3] -> planes [1, 3, H, W] in lattice units."""
    centred = (pixels[:, :, ::-1].astype(np.float32) - CENTRE) * unit
    return np.ascontiguousarray(centred.transpose(2, 0, 1))[None]


def to_pixels(planes: Planes, unit: int) -> Bytes8:
    """Planes [1, 3, H, W] -> pixels [H, W, 3]; values are clipped to 0 ... 255.

    Half grey levels go to the even neighbour: rounding them all up would brighten a picture with every generation.
    """
    grey = np.rint(planes[0] * np.float32(1 / unit) + np.float32(CENTRE))
    clipped = np.clip(grey, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(clipped.transpose(1, 2, 0)[:, :, ::-1])


def pad_even(planes: Floats) -> Floats:
    """Repeat the last row and column where a side is odd."""
    rows, columns = planes.shape[2] % 2, planes.shape[3] % 2
    return np.pad(planes, ((0, 0), (0, 0), (0, rows), (0, columns)), "edge") if rows or columns else planes


def greyed(pixels: Bytes8) -> Bytes8:
    """Pixels of a grey picture: (R + 2 G + B + 2) / 4 rounded down in all three channels; equal channels stay."""
    wide = pixels.astype(np.uint16)
    grey = ((wide[..., 0] + 2 * wide[..., 1] + wide[..., 2] + 2) >> 2).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
