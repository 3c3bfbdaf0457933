"""Errors of a level's details, known or expected -> where they move the best values of other details. Encoder only.

The basis functions of details of one colour are not orthogonal: neighbours overlap, and so do LH, HL and HH. So what
one detail loses can partly be made good by others, and the encoder weighs distortion accordingly when it chooses
between two bins. Colours are orthogonal to one another; Cg and Co have the same kernels, for they have the same taps.
Before anything is coded, every detail is expected to be quantised with a dead zone; what passes choose replaces that. A
picture the encoder has decoded itself leaves it no choice, whatever the errors.

Source: L. Babai, "On Lovász' lattice reduction and the nearest lattice point problem", Combinatorica 6(1), 1986.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Floats, Integers
from service.codec.artifact import Model
from service.codec.prior import bands_of, colours_of, phase_of, select
from service.codec.quantise import STEP_UNIT, Steps, beyond_dead_zone, expected, points

ERROR_LIMIT = 1023
"""Errors are read as signed integers of ten bits, in units of a power of two of the lattice."""
COLOURS = 3
KERNEL_BITS = 8
"""Kernels are in 1/2**KERNEL_BITS."""


class Feedback:
    """The errors of one level of N tiles of one size.

    Args:
        model: The model.
        details: [N, 9, H, W].
        level: 0 is the finest.
        steps: Of the nine bands, for each tile.
    """

    def __init__(self, model: Model, details: Integers, level: int, steps: Sequence[Steps]) -> None:
        self.session, self.kernels = model.sessions["feedback"], model.tables.feedback[level]
        self.details, self.steps = details, steps
        widest = [3 * int(own.width.max()) // (4 * STEP_UNIT) for own in steps]
        self.exponents = [max(0, error.bit_length() - ERROR_LIMIT.bit_length()) for error in widest]
        count, bands, height, width = details.shape
        reach = self.kernels.shape[-1] // 2
        self.padded = np.zeros((count, bands, height + 2 * reach, width + 2 * reach), np.float32)
        self.errors = self.padded[:, :, reach : reach + height, reach : reach + width]
        self.bins = np.zeros(details.shape, np.int32)
        for tile, (own, values) in enumerate(zip(steps, details, strict=True)):
            self.errors[tile] = self._read(tile, values)
            places = np.nonzero(beyond_dead_zone(values, own))
            self._take(tile, places, expected(values[places], own.width[places[0]]))

    def _take(self, tile: int, places: tuple[NDArray[np.intp], ...], bins: Integers) -> None:
        """Take bins to be those of some places: channels, rows, columns."""
        self.bins[tile][places] = bins
        put = points(bins, self.steps[tile].width[places[0]], self.steps[tile].outward)
        self.errors[tile][places] = self._read(tile, self.details[tile][places] - put)

    def _read(self, tile: int, errors: Integers) -> Integers:
        exponent = self.exponents[tile]
        read: Integers = np.clip((errors + (1 << exponent >> 1)) >> exponent, -ERROR_LIMIT, ERROR_LIMIT)
        return read

    def shift(self, number: int) -> list[Integers]:
        """How far the values of a pass had better move, in lattice units: [bands, rows, columns] of each tile."""
        values = select(self.details, number)
        if not values.size:
            return list(np.zeros_like(values))
        row, column = phase_of(number)
        colours = colours_of(number)
        errors = np.concatenate([self.padded[:, colour::COLOURS, row:, column:] for colour in colours])
        kernel = self.kernels[int(colours[0] > 0)]
        each_colour: Floats = self.session.run(["moved"], {"errors": errors, "kernel": kernel})[0]
        moved = each_colour.reshape(len(colours), len(values), -1, *values.shape[2:]).transpose(1, 2, 0, 3, 4)
        half = 1 << KERNEL_BITS >> 1
        each = zip(moved.reshape(values.shape).astype(np.int32), self.exponents, strict=True)
        return [((own << exponent) + half) >> KERNEL_BITS for own, exponent in each]

    def learn(self, number: int, bins: Integers) -> None:
        """Take in the bins of a pass, [N, bands, rows, columns]."""
        bands, (row, column) = np.array(bands_of(number)), phase_of(number)
        changed = bins != select(self.bins, number)
        for tile, own in enumerate(bins):
            band, y, x = np.nonzero(changed[tile])  # few, as a rule
            self._take(tile, (bands[band], row + 2 * y, column + 2 * x), own[band, y, x])
