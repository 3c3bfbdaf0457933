"""listed: places and values come back, and no damaged list gets through."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import codec
from service.codec.listed import FEWEST_PLACES, packed, unpacked

PLACES = 4096


def listed(count: int, width: int, seed: int = 0):
    rng = np.random.default_rng([seed, width])
    places = np.sort(rng.choice(PLACES, count, replace=False))
    return places, rng.integers(1 if width == 1 else 0, 256, (count, width)).astype(np.uint8)


@given(counts=st.lists(st.integers(0, PLACES // FEWEST_PLACES), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_lists_come_back(counts, seed):
    widths = [1, 1, 3][: len(counts)]
    lists = [listed(count, width, seed) for count, width in zip(counts, widths, strict=True)]
    for (places, values), (own_places, own_values) in zip(lists, unpacked(packed(lists), widths, PLACES), strict=True):
        np.testing.assert_array_equal(own_places, places)
        np.testing.assert_array_equal(own_values, values)


def test_empty_lists_take_no_bytes():
    assert packed([listed(0, 1), listed(0, 3)]) == b""


def test_places_and_small_values_take_little_more_than_they_tell():
    """A place in a hundred, and its sign: 8.1 and 1 bits by entropy."""
    rng = np.random.default_rng(0)
    places = np.flatnonzero(rng.random(200_000) < 0.01)
    signs = rng.choice(np.array([1, 255], np.uint8), (len(places), 1))
    assert len(packed([(places, signs)])) * 8 / len(places) < 10.5


WHOLE = packed([listed(9, 1)])


def hand_made(*bits: int) -> bytes:
    """A list of one place."""
    return (1).to_bytes(4, "little") + np.packbits(bits).tobytes()


def test_a_list_made_by_hand_is_read():
    """Place 5 as 1 zero, a one and two low bits; value -1 as a zero and a one."""
    ((places, values),) = unpacked(hand_made(0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1), [1], PLACES)
    assert (places.tolist(), values.tolist()) == ([5], [[255]])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(WHOLE[:3], id="a piece of a head"),
        pytest.param(WHOLE[:4], id="nothing but a head"),
        pytest.param(WHOLE[:-1], id="cut"),
        pytest.param(WHOLE + b"\0", id="longer"),
        pytest.param(WHOLE + b"\xff" * PLACES, id="far longer"),
        pytest.param(b"\xff\xff\xff\xff" + WHOLE[4:], id="too many"),
        pytest.param(hand_made(1, 1, 0, 0, 0, 1, *[0] * 12, 0, 0, 0, 0, 1), id="beyond the last place"),
        pytest.param(hand_made(0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, *[0] * 8), id="too large a value"),
        pytest.param(hand_made(0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1), id="not filled with zeros"),
    ],
)
def test_damaged_lists_are_refused(data):
    with pytest.raises(codec.CorruptStreamError):
        unpacked(data, [1], PLACES)
