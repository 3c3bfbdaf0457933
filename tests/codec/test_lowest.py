"""lowest: bins of the coarsest low-pass come back, whatever their shape."""

import numpy as np
import pytest
from numpy.typing import NDArray

from service import codec
from service.codec.coder_tables import Symbols
from service.codec.entropy import NO_CHECKS, Decoder, Encoder
from service.codec.lowest import CHANNELS, decode_lowest, encode_lowest


def part_of(bins: np.ndarray, model: codec.Model) -> bytes:
    encoder = Encoder(model.tables.entropy_of(0))
    head = encode_lowest(bins.astype(np.int32), encoder, model.tables.entropy_of(0))
    return head + encoder.words()


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (7, 1), (2, 3), (12, 8), (16, 16)])
@pytest.mark.parametrize("spread", [0, 2, 300, 100_000])
def test_bins_come_back(size, spread, models):
    bins = np.random.default_rng(1).integers(-spread, spread + 1, (CHANNELS, *size))
    decoder, found = decode_lowest(part_of(bins, models.default), size, models.default.tables.entropy_of(0))
    np.testing.assert_array_equal(found, bins)
    assert isinstance(decoder, Decoder)


class Recorder(Encoder):
    """Keeps what it is asked to code."""

    def add(self, symbols: Symbols, checks: NDArray[np.intp] = NO_CHECKS) -> None:
        self.residuals = [*getattr(self, "residuals", []), symbols.residuals]


def test_a_value_is_foretold_by_the_mean_of_its_neighbours(models):
    """Along an edge the one neighbour there is counts twice, and the first value has none."""
    tables = models.default.tables.entropy_of(0)
    bins, said = np.zeros((CHANNELS, 4, 5), np.int32), np.random.default_rng(2).integers(-9, 10, (CHANNELS, 4, 5))
    for row in range(4):
        for column in range(5):
            known = [bins[:, row, column - 1]] * (column > 0) + [bins[:, row - 1, column]] * (row > 0)
            foretold = sum(known) // len(known) if known else 0
            bins[:, row, column] = foretold + said[:, row, column]
    recorder = Recorder(tables)
    encode_lowest(bins, recorder, tables)
    np.testing.assert_array_equal(np.stack(recorder.residuals), said.reshape(CHANNELS, -1))


@pytest.mark.parametrize("head", [b"", b"\x01\x02", b"\x01\x02\x46"])
def test_an_impossible_head_is_damage(head, models):
    with pytest.raises(codec.CorruptStreamError, match="first section"):
        decode_lowest(head, (4, 4), models.default.tables.entropy_of(0))
