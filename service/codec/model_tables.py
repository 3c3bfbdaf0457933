"""tables.npz of a model -> the integers it brings beside its graphs."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Bytes8, Floats
from service.codec.centroids import Centroids
from service.codec.coder_tables import Tables, make_table_sets
from service.codec.errors import ModelError

TABLES = frozenset(
    {
        *(
            "frequencies",
            "starts",
            "choice",
            "table_sets",
            "prices",
            "parity_prices",
            "steps",
            "weights",
            "outward",
            "reaches",
            "centroids",
            "margins",
            "feedback",
            "synthesis",
            "worths",
            "positions",
        ),
        *("edge_scales", "low_scales", "low_gains", "low_offsets", "squash", "knots", "positions_per_knot"),
    }
)


@dataclass(frozen=True)
class ModelTables:
    """Integers a model brings beside its graphs.

    Attributes:
        entropy: The coder's tables, once for each set.
        table_sets: Which set serves each quality code, [codes + 1]; the last is lossless.
        steps: Step of each (quality code, level, band) in 1/64 lattice unit, [codes, levels, 12].
        weights: What a squared bin of distortion is worth to the encoder in 1/16 bit, [codes, levels, 12].
        outward: Outward shift of the reconstruction points of each quality code in 1/64 bin, [codes].
        reaches: How far below the middle of a bin its reconstruction points may lie, in 1/64 bin, [codes, levels, 12].
        centroids: Where in their bins values lie on average in each lossy set, luma and chroma, as `Centroids` has it,
            [sets - 1, 2, 3, 70, 17].
        margins: Least distance of a reconstruction point from a threshold, in lattice units, [levels, 12].
        feedback: How far an error in one of LH, HL, HH (fourth axis) moves the best value of another (third) around it,
            in luma and in chroma, in 1/256, [levels, 2, 3, 3, 5, 5].
        synthesis: What a unit of low-pass, LH, HL and HH adds to the state above, in luma and in chroma, in 1/256,
            [levels, 2, 4, 1, 11, 11], as the encoder's adjoint reads it.
        worths: At each quality code, an exponent of two near the base step in lattice units, and what a lattice unit of
            error costs, as `elsewhere` has it, [codes, 2].
        edge_scales: Scale of the low-pass's edges, [codes + 1, levels, 3]; the last row is lossless.
        low_scales: Scale of the low-pass at unit 1, [rungs].
        low_gains: Gain of the low-pass of each rung in 1/2**20, [rungs, 3].
        low_offsets: Low-pass of mid-grey, likewise, in grey levels, [rungs, 3].
        squash: What heads read for each |bin|, in units of bytes, [2, sizes]: compressed, and linear but clipped;
            larger bins are read like the largest.
        knots: Number of quality knots, the lossless one not included.
        positions: Where each quality code lies on the axis the networks are conditioned on, [codes].
        positions_per_knot: Positions between two knots.
    """

    entropy: tuple[Tables, ...]
    table_sets: NDArray[np.int8]
    steps: NDArray[np.int32]
    weights: NDArray[np.int32]
    outward: NDArray[np.int32]
    reaches: NDArray[np.int32]
    centroids: NDArray[np.int8]
    margins: NDArray[np.int32]
    feedback: Floats
    synthesis: Floats
    worths: NDArray[np.int64]
    edge_scales: Floats
    low_scales: Floats
    low_gains: NDArray[np.int64]
    low_offsets: NDArray[np.int64]
    squash: Bytes8
    knots: int
    positions: NDArray[np.int32]
    positions_per_knot: int

    def entropy_of(self, code: int | None) -> Tables:
        """The coder's tables at a quality code; None: lossless."""
        return self.entropy[int(self.table_sets[-1 if code is None else code])]

    def centroids_of(self, code: int) -> tuple[Centroids, Centroids]:
        """Those of luma and of chroma at a quality code."""
        luma, chroma = self.centroids[int(self.table_sets[code])]
        return Centroids(luma), Centroids(chroma)


def read_tables(data: bytes) -> ModelTables:
    """Open a tables.npz; ModelError if one is missing."""
    with np.load(io.BytesIO(data), allow_pickle=False) as t:
        missing = TABLES - set(t.files)
        if missing:
            raise ModelError(f"the model lacks the tables {', '.join(sorted(missing))}; export it again with this code")
        return ModelTables(
            make_table_sets(t["frequencies"], t["starts"], t["choice"], t["prices"], t["parity_prices"]),
            t["table_sets"],
            t["steps"],
            t["weights"],
            t["outward"],
            t["reaches"],
            t["centroids"],
            t["margins"],
            t["feedback"].astype(np.float32),
            t["synthesis"].astype(np.float32),
            t["worths"],
            t["edge_scales"],
            t["low_scales"],
            t["low_gains"],
            t["low_offsets"],
            t["squash"].astype(np.uint8),
            int(t["knots"]),
            t["positions"],
            int(t["positions_per_knot"]),
        )
