"""Shifts of scale indices: the cheapest is found, said in a byte, and undone by nothing but the same shift."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import codec
from service.codec.calibration import LIMIT, SAMPLE, cheapest, read_shifts, shifted, write_shifts
from service.codec.entropy import Tables
from service.codec.errors import CorruptStreamError

SHIFTS = st.integers(-LIMIT, LIMIT)


@pytest.fixture(scope="module")
def tables(models: codec.ModelSet) -> Tables:
    return models.default.tables.entropy_of(300)


@given(st.lists(st.tuples(SHIFTS, SHIFTS), max_size=6))
def test_shifts_come_back(pairs: list[tuple[int, int]]):
    assert read_shifts(b"".join(write_shifts(*pair) for pair in pairs) + b"words", len(pairs)) == pairs


@pytest.mark.parametrize("head", [b"", b"\x88", b"\x88\x08", b"\x80\x88"])
def test_a_short_or_impossible_head_is_refused(head: bytes):
    with pytest.raises(CorruptStreamError):
        read_shifts(head, 2)


def test_shifted_indices_stay_within_the_tables(tables: Tables):
    scales = np.array([0, 1, 35, 68, 69], np.int16)
    assert shifted(scales, 0, tables) is scales
    assert shifted(scales, 3, tables).tolist() == [3, 4, 38, 69, 69]
    assert shifted(scales, -3, tables).tolist() == [0, 0, 32, 65, 66]


@pytest.mark.parametrize("off", [-4, -1, 0, 2, 5])
def test_the_cheapest_shift_is_how_far_the_prior_was_off(tables: Tables, off: int):
    rng = np.random.default_rng(0)
    true = rng.integers(30, 45, 40000).astype(np.int16)
    bins = np.rint(rng.logistic(0, 2.0 ** (-4.8 + 0.2 * true))).astype(np.int32)
    said = bins, np.zeros(bins.size, np.int16), (true - off).astype(np.int16)
    assert abs(cheapest([said, said], tables) - off) <= 1
    assert cheapest([said[:1] + said[1:]], tables) == cheapest([said], tables)


def test_what_is_beyond_the_sample_changes_little_and_nothing_at_all_is_no_shift(tables: Tables):
    empty = np.zeros(0, np.int32), np.zeros(0, np.int16), np.zeros(0, np.int16)
    assert cheapest([empty], tables) == 0
    rng = np.random.default_rng(1)
    scales = np.full(5 * SAMPLE, 34, np.int16)
    bins = np.rint(rng.logistic(0, 2.0 ** (-4.8 + 0.2 * 37), scales.size)).astype(np.int32)
    means = np.zeros(bins.size, np.int16)
    assert abs(cheapest([(bins, means, scales), empty], tables) - 3) <= 1
