"""A pass of one tile, or all passes of a level, <-> symbols: bins chosen and tied, coded, and read again."""

from __future__ import annotations

from collections.abc import Sequence

from service.codec.arrays import Integers, Shorts
from service.codec.calibration import Calibrated, Calibration, Said
from service.codec.choice import Values, choose
from service.codec.coder_tables import Tables, symbols_of
from service.codec.entropy import Decoder, Encoder
from service.codec.fitting import calibrate
from service.codec.trellis import Trellis
from service.codec.viterbi import tied


def chosen(values: Values, trellis: Trellis | None) -> tuple[Integers, int]:
    """The bins of a pass of one tile: chosen one by one, then as their trellis asks for; and how many checks did."""
    bins = choose(values)
    return (bins, 0) if trellis is None else tied(bins, values, trellis)


def write_level(encoder: Encoder, passes: Sequence[Said], tables: Tables) -> None:
    """Code one tile's level: its calibration and its passes."""
    calibration = calibrate(passes, size_of(passes), tables)
    calibration.write(encoder, tables)
    write_passes(encoder, passes, calibration, tables)


def write_passes(encoder: Encoder, passes: Sequence[Said], calibration: Calibration, tables: Tables) -> None:
    """Code the passes of one tile's level as a calibration corrects them."""
    calibrated = Calibrated(calibration, size_of(passes), tables)
    for number, (bins, means, scales, checks, _) in enumerate(passes):
        own_means, own_scales = calibrated.said(number, means, scales)
        encoder.add(symbols_of(bins.ravel(), own_means.ravel(), own_scales.ravel(), tables), checks)
        calibrated.learn(number, bins, means)


def take_pass(
    number: int, decoder: Decoder, calibrated: Calibrated, means: Shorts, scales: Shorts, trellis: Trellis | None
) -> Integers:
    """Decode a pass of one tile, [bands, rows, columns]; `calibrated` learns it."""
    own_means, own_scales = calibrated.said(number, means, scales)
    bins = decoder.take(own_means.ravel(), own_scales.ravel(), trellis).reshape(means.shape)
    calibrated.learn(number, bins, means)
    return bins


def size_of(passes: Sequence[Said]) -> tuple[int, int]:
    """Rows and columns of the level that some passes make up: the second one lies at odd positions only."""
    even, odd = passes[0].bins, passes[1].bins
    return even.shape[1] + odd.shape[1], even.shape[2] + odd.shape[2]
