"""What is known of a level -> mean and scale index of every bin, pass by pass, and reconstruction offsets.

A level's bins are coded in eight passes: luma in the four phases of 2x2 cells, then chroma in the same four. Each
pass reads the trunk's features and all bins of earlier passes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.codec.arrays import Bytes8, Floats, Integers, Number, Shorts
from service.codec.artifact import Model, levels_served
from service.codec.flow import present
from service.codec.lattice import READ_UNIT, pad_even

LUMA, CHROMA = (0, 3, 6), (1, 2, 4, 5, 7, 8)
"""Of the nine detail channels: LH, HL, HH of Y, Cg, Co."""
PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))
"""Row and column parity of the positions each phase codes, in order."""
PASSES = 8
LUMA_PLANES, PLANES, PLANES_READ = 9, 27, 32
"""Planes of known bins: three for each luma band, and for all bands; and as many as graphs of floats read, with nothing
for the last ones: convolutions of whole blocks of 16 channels take half the time."""
PLANE_ZERO = 128
"""What a plane's 0 is as a byte."""


class LevelPrior:
    """The prior of one level of N tiles of one size; passes are asked for in order.

    Args:
        model: The model.
        low: Exact low-pass of the level, [N, 3, H, W], lattice units.
        parent: What the coarser level handed on, or None at the coarsest.
        level: 0 is the finest.
        codes: Quality code of each tile; None: lossless.
        unit: Lattice units in a grey level.
        finer: Height and width of the state above the level: where they are odd, some details are not there.
    """

    def __init__(
        self,
        model: Model,
        low: Floats,
        parent: ort.OrtValue | None,
        level: int,
        codes: list[int] | None,
        unit: int,
        finer: tuple[int, int],
    ) -> None:
        self.present = np.broadcast_to(present(finer), (9, *low.shape[2:]))
        self.model, self.level, self.size = model, level, low.shape[2:]
        values = trunk_feeds(model, low, parent, level, codes, unit)
        count, _, self.height, self.width = values["low"].shape()
        (self.features,) = model.prior_session("trunk", level).run_with_ort_values(["features"], values)
        self.luma: list[Bytes8] = []
        self.joined = np.empty((0, 0, 0, 0), np.uint8)
        self.condition = values["condition"]
        self.means, self.scales = np.zeros((2, count, 9, *self.size), np.int16)

    def _run(self, graph: str, outputs: list[str], number: int) -> list[ort.OrtValue]:
        """Run a graph on what pass `number` knows; the dequantiser's number is PASSES."""
        feeds = {"condition": self.condition}
        if codes_chroma(number):
            feeds["joined"] = on_device(self.joined, self.model)
        else:
            feeds["features"] = self.features
            if number:
                feeds["known"] = on_device(np.concatenate(self.luma, 3), self.model)
        return list(self.model.prior_session(graph, self.level).run_with_ort_values(outputs, feeds))

    def said(self, number: int) -> tuple[Shorts, Shorts]:
        """Mean (1/8 bin) and scale index of each bin of a pass, two of [N, bands, rows, columns].

        Only positions within the level's true size are given. Of details that are not there both are 0.
        """
        graph = f"{'chroma' if codes_chroma(number) else 'luma'}{number % len(PHASES)}"
        (value,) = self._run(graph, ["said"], number)
        rows, columns = self.extent(number)
        said: Shorts = value.numpy()[:, :, :rows, :columns]
        bands, there = said.shape[1] // 2, select(self.present[None], number)
        if not there.all():
            said = said * np.concatenate([there, there], 1)
        place(self.means, number, said[:, :bands])
        place(self.scales, number, said[:, bands:])
        return said[:, :bands], said[:, bands:]

    def extent(self, number: int) -> tuple[int, int]:
        """Rows and columns of a pass within the level's true size."""
        row, column = phase_of(number)
        return (self.size[0] - row + 1) // 2, (self.size[1] - column + 1) // 2

    def learn(self, number: int, bins: Integers) -> None:
        """Tell the bins of a pass, [N, bands, rows, columns]; those of luma come first, in order."""
        rows, columns = bins.shape[2:]
        planes = planes_of(bins, self.model.tables.squash).transpose(0, 2, 3, 1)
        if codes_chroma(number):
            self._of_phase(number)[:, :rows, :columns, LUMA_PLANES:] = planes
            return
        known = np.full((len(bins), self.height // 2, self.width // 2, LUMA_PLANES), PLANE_ZERO, np.uint8)
        known[:, :rows, :columns] = planes
        self.luma.append(known)
        if len(self.luma) == len(PHASES):
            self._join()

    def _of_phase(self, number: int) -> Bytes8:
        """Where bins of a pass are read, [N, h, w, 27]."""
        (row, column), first = phase_of(number), self.features.shape()[3]
        planes: Bytes8 = self.joined[:, row::2, column::2, first : first + PLANES]
        return planes

    def _join(self) -> None:
        """Features, luma's bins, as yet none of chroma's, and the condition, as chroma's heads read them."""
        features, condition = self.features.numpy(), condition_channels(self.condition.numpy(), self.model, self.level)
        first, told = features.shape[3], features.shape[3] + PLANES
        self.joined = np.zeros((*features.shape[:3], whole_fours(told + condition.shape[1])), np.uint8)
        self.joined[..., :first] = features
        self.joined[..., first:told] = PLANE_ZERO
        self.joined[..., told : told + condition.shape[1]] = condition[:, None, None]
        for number, known in enumerate(self.luma):
            self._of_phase(number)[..., :LUMA_PLANES] = known

    def finish(self) -> tuple[Shorts, ort.OrtValue | None]:
        """Once all passes are known.

        Returns:
            Reconstruction offset of every bin in 1/256 bin, [N, 9, H, W], and what is handed on to the finer level;
            None at the finest.
        """
        outputs = ["offsets", "handed_on"] if self.level else ["offsets"]
        offsets, *handed_on = self._run("dequantiser", outputs, PASSES)
        known = np.asarray(offsets.numpy())[:, :, : self.size[0], : self.size[1]]
        return known, handed_on[0] if handed_on else None


def planes_of(bins: Integers, squash: Bytes8) -> Bytes8:
    """Bins of luma or chroma, [N, bands, h, w] -> what graphs read of them, [N, 3 bands, h, w], PLANE_ZERO more."""
    last, bands = squash.shape[1] - 1, bins.shape[1]
    signed = np.concatenate([PLANE_ZERO - squash[:, :0:-1], PLANE_ZERO + squash], 1)
    size = np.concatenate([PLANE_ZERO + squash[0, :0:-1], signed[0, last:]])
    index = np.clip(bins, -last, last) + last
    result = np.empty((len(bins), 3 * bands, *bins.shape[2:]), np.uint8)
    for place, table in enumerate((signed[0], size, signed[1])):
        table.take(index, out=result[:, place * bands : (place + 1) * bands], mode="clip")
    return result


def condition_channels(condition: Floats, model: Model, level: int) -> Bytes8:
    """What sums of bytes read of the condition, [N, pairs of levels that the same graphs serve]."""
    served, knots = levels_served(level, model.levels), model.tables.knots + 1
    rows = condition[:, served.start * knots : served.stop * knots] * np.float32(model.tables.positions_per_knot)
    channels: Bytes8 = np.rint(rows).astype(np.uint8)
    return channels


def trunk_feeds(
    model: Model, low: Floats, parent: ort.OrtValue | None, level: int, codes: list[int] | None, unit: int
) -> dict[str, ort.OrtValue]:
    """What the trunk of a level reads, sides even; arguments as in `LevelPrior`."""
    reading = min(unit, READ_UNIT)
    padded = pad_even(np.rint(low * np.float32(reading / unit)))
    count, _, height, width = padded.shape
    tables, rows = model.tables, [-1] * len(low) if codes is None else codes
    low_scale = tables.low_scales[model.rung(level, unit)] / np.float32(reading)
    feeds = {
        "low": padded,
        "low_scale": np.full((count, 1, 1, 1), low_scale, np.float32),
        "edge_scale": tables.edge_scales[rows, level][:, :, None, None],
        "condition": condition_rows(model, count, level, codes),
    }
    if parent is None:
        parent = on_device(np.zeros((count, model.parent(level), height // 2, width // 2), np.uint8), model)
    return {name: on_device(value, model) for name, value in feeds.items()} | {"parent": parent}


def on_device(value: Floats | Bytes8, model: Model) -> ort.OrtValue:
    """A value where a model's graphs run."""
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value), model.device)


def kept(handed_on: ort.OrtValue | None, count: int) -> list[Bytes8 | None]:
    """What the prior of N tiles handed on -> each one's, [1, parent, H, W], in memory of its own."""
    if handed_on is None:
        return [None] * count
    return list(handed_on.numpy()[:, None].copy())


def restored(parents: Sequence[Bytes8 | None], model: Model) -> ort.OrtValue | None:
    """The reverse of `kept`, on the model's device."""
    given = [parent for parent in parents if parent is not None]
    if not given:
        return None
    return on_device(np.concatenate(given), model)


def whole_fours(channels: int) -> int:
    """So many channels, or a few more: 8-bit kernels read four at once."""
    return -(-channels // 4) * 4


def phase_of(number: int) -> tuple[int, int]:
    """First row and column of a pass."""
    return PHASES[number % len(PHASES)]


def codes_chroma(number: int) -> bool:
    """Whether a pass codes chroma: luma's come first, one a phase."""
    return number >= len(PHASES)


def colours_of(number: int) -> tuple[int, ...]:
    """Colours a pass codes, out of Y, Cg, Co."""
    return (1, 2) if codes_chroma(number) else (0,)


def bands_of(number: int) -> tuple[int, ...]:
    """Detail channels a pass codes."""
    return CHROMA if codes_chroma(number) else LUMA


def select(details: NDArray[Number], number: int) -> NDArray[Number]:
    """The values a pass codes, out of all of a level: [N, 9, H, W] -> [N, bands, rows, columns]."""
    row, column = phase_of(number)
    return details[:, bands_of(number), row::2, column::2]


def place(details: NDArray[Number], number: int, values: NDArray[Number]) -> None:
    """Put the values of a pass into their places among all of a level."""
    row, column = phase_of(number)
    for band, channel in enumerate(bands_of(number)):
        details[:, channel, row::2, column::2] = values[:, band]


def condition_rows(model: Model, count: int, level: int, codes: list[int] | None) -> Floats:
    """Weights over (level, knot) pairs: a hat function over the quality knots, or the lossless knot; [N, pairs]."""
    knots = model.tables.knots + 1
    rows = np.zeros((count, model.levels, knots), np.float32)
    for index in range(count):
        if codes is None:
            rows[index, level, -1] = 1
            continue
        knot, rest = divmod(int(model.tables.positions[codes[index]]), model.tables.positions_per_knot)
        share = rest / model.tables.positions_per_knot
        rows[index, level, knot] = 1 - share
        if rest:
            rows[index, level, knot + 1] = share
    return rows.reshape(count, -1)
