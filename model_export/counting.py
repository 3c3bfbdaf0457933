"""The exact codec over training pictures -> what its tables are fitted to.

How often each table of the entropy coder meets each residual, and how far values lie from the points of their bins.
"""

from __future__ import annotations

import functools
import math
import operator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from model_export.data import Picture
from model_export.prior import SCALES
from model_export.tables import LOSSY_SETS, SET_ENDS, TIED_END
from service.codec import lattice
from service.codec.artifact import Model, RuntimeOptions, open_model
from service.codec.calibration import Calibration, Said
from service.codec.centroids import DISTANCES, MAGNITUDES, away, places_of
from service.codec.clock import Clock
from service.codec.coder_tables import Symbols, Tables
from service.codec.elsewhere import costs_elsewhere
from service.codec.entropy import NO_CHECKS, Encoder, without
from service.codec.lowest import encode_lowest
from service.codec.passes import write_passes
from service.codec.prior import codes_chroma, select
from service.codec.quantise import STEP_UNIT, quantise
from service.codec.tile import analyse, rebuild_lows
from service.codec.walk import DETAILS, Latent, Walk, integers

TRUST = 200.0
"""That values lie where points are counts as much as this many values."""
SCALES_SMOOTHED, DISTANCES_SMOOTHED = 1.5, 0.7
"""Standard deviation of the windows that centroids are means over, in scale indices and eighths of a bin."""


def counted(folder: Path, pictures: list[Picture], processes: int = 1) -> Counts:
    """What a model in a folder meets in pictures, `Counts.of`, by processes of one thread each."""
    if processes == 1:
        return _part(folder, pictures, 0, 1)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        parts = [pool.submit(_part, folder, pictures, first, processes) for first in range(processes)]
        return functools.reduce(operator.add, [part.result() for part in parts])


def _part(folder: Path, pictures: list[Picture], first: int, every: int) -> Counts:
    return Counts.of(open_model(folder, RuntimeOptions(device="cpu", threads=1)), pictures, first, every)


class CountingEncoder(Encoder):
    """Counts what each table meets instead of coding it.

    Args:
        tables: The coder's.
        counts: Of each table: how often each residual was met, and the escape.
    """

    def __init__(self, tables: Tables, counts: list[NDArray[np.int64]]) -> None:
        super().__init__(tables)
        self._halves, self._counts = tables.whole.halves, counts

    def add(self, symbols: Symbols, checks: NDArray[np.intp] = NO_CHECKS) -> None:
        """Count the bins of one pass that are free."""
        free = without(checks, len(symbols.tables))
        tables, residuals = symbols.tables[free], symbols.residuals[free]
        order = np.argsort(tables, kind="stable")
        chosen, residuals = tables[order], residuals[order]
        present, starts = np.unique(chosen, return_index=True)
        for table, part in zip(present, np.split(residuals, starts[1:]), strict=True):
            half = self._halves[table]
            index = np.where(np.abs(part) <= half, part + half, 2 * half + 1)
            self._counts[table] += np.bincount(index, minlength=2 * half + 2)


@dataclass(frozen=True)
class Counts:
    """What was met.

    Attributes:
        residuals: Of each table of the entropy coder: -half ... half and the escape.
        values: In each lossy set, luma and chroma, how many values had a bin of each size, each scale index, and each
            distance of the prior's mean, [LOSSY_SETS, 2, MAGNITUDES, SCALES, DISTANCES].
        left: How far they lay from the points of their bins, away from 0, added up, in bins, likewise.
    """

    residuals: list[NDArray[np.int64]]
    values: NDArray[np.float64]
    left: NDArray[np.float64]

    @classmethod
    def of(cls, model: Model, pictures: list[Picture], first: int = 0, every: int = 1) -> Counts:
        """Run the exact codec over pictures, each at a quality of every lossy set and every third losslessly.

        Tied bins are chosen by what they cost elsewhere too: tables that are made for those serve others as well.
        Only every so many pictures are met, from the first named on: what all of them give can be added up.
        """
        shape = LOSSY_SETS, 2, MAGNITUDES, SCALES, DISTANCES
        halves = model.tables.entropy[0].whole.halves
        counts = cls([np.zeros(2 * half + 2, np.int64) for half in halves], np.zeros(shape), np.zeros(shape))
        for number in range(first, len(pictures), every):
            pixels, rng = pictures[number], np.random.default_rng(number)
            planes = lattice.to_planes(pixels, lattice.LOSSY_UNIT)
            lossy = analyse(planes, model, lattice.LOSSY_UNIT, Clock())
            for code in rng.integers((0, *SET_ENDS[:-1]), SET_ENDS):
                costs = costs_elsewhere(planes, model, [int(code)], Clock()) if code < TIED_END else ()
                counts._meet(model, replace(lossy, elsewhere=costs), int(code))
            if number % 3 == 0:
                unit = lattice.LOSSLESS_UNIT
                counts._meet(model, analyse(lattice.to_planes(pixels, unit), model, unit, Clock()), None)
        return counts

    def __add__(self, other: Counts) -> Counts:
        residuals = [own + more for own, more in zip(self.residuals, other.residuals, strict=True)]
        return Counts(residuals, self.values + other.values, self.left + other.left)

    def _meet(self, model: Model, latent: Latent, code: int | None) -> None:
        """Code one tile as `tile.encode_tiles` does, but uncalibrated: tables are made for pictures on average."""
        tied = code is not None and code < TIED_END
        codes, levels = None if code is None else [code], len(latent.details)
        walk = Walk(model, codes, 1, levels, latent.unit, Clock(), tied=tied, held=not tied)
        (tables,), steps, sizes = walk.tables(), walk.low_steps(), lattice.sizes_of(*latent.size)
        encoder = CountingEncoder(tables, self.residuals)
        bins = quantise(integers(latent.low)[0], steps[0])
        encode_lowest(bins, encoder, tables)
        low, parent = rebuild_lows([bins], steps), None
        for level in reversed(range(levels)):
            if code is None:
                low = latent.lows[level]
            costs = latent.costs_elsewhere(level)
            details, parent, (said,) = walk.encode_level(latent.details[level], level, low, parent, sizes[level], costs)
            write_passes(encoder, said, Calibration(), tables)
            if code is None:
                continue
            low = walk.finer(low, details, level, sizes[level])
            widths = walk.steps(level)[0].channels(DETAILS).column / STEP_UNIT
            self._leave(int(model.tables.table_sets[code]), said, (latent.details[level] - details) / widths)

    def _leave(self, lossy_set: int, said: list[Said], errors: NDArray[np.float64]) -> None:
        """Take in how far the values of a level lay from their points, in bins, [1, 9, h, w]."""
        for number, (bins, means, scales, *_) in enumerate(said):
            shape, own = self.values.shape[2:], (lossy_set, int(codes_chroma(number)))
            places = np.ravel_multi_index(places_of(bins, means, scales), shape).ravel()
            off = (away(bins) * select(errors, number)[0]).ravel()
            self.values[own] += np.bincount(places, minlength=math.prod(shape)).reshape(shape)
            self.left[own] += np.bincount(places, off, math.prod(shape)).reshape(shape)

    def centroids(self) -> NDArray[np.int8]:
        """Where in their bins values lie on average, as `Centroids` has it, [LOSSY_SETS, 2, 3, SCALES, DISTANCES]."""
        values, left = self.values.copy(), self.left.copy()
        values[:, :, 0] += values[:, :, 0, :, ::-1]
        left[:, :, 0] -= left[:, :, 0, :, ::-1]
        window = (0, 0, 0, SCALES_SMOOTHED, DISTANCES_SMOOTHED)
        values, left = (gaussian_filter(own, window, mode="constant") for own in (values, left))
        return np.rint(256 * left / (values + TRUST)).clip(-127, 127).astype(np.int8)
