"""listed: places and values come back, and no damaged list gets through."""

from __future__ import annotations

import zlib

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
    return places, rng.integers(0, 256, (count, width)).astype(np.uint8)


@given(counts=st.lists(st.integers(0, PLACES // FEWEST_PLACES), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_lists_come_back(counts, seed):
    widths = [1, 1, 3][: len(counts)]
    lists = [listed(count, width, seed) for count, width in zip(counts, widths, strict=True)]
    for (places, values), (own_places, own_values) in zip(lists, unpacked(packed(lists), widths, PLACES), strict=True):
        np.testing.assert_array_equal(own_places, places)
        np.testing.assert_array_equal(own_values, values)


def test_empty_lists_take_no_bytes():
    assert packed([listed(0, 1), listed(0, 3)]) == b""


def plain() -> bytes:
    return zlib.decompress(packed([listed(9, 1)]))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"not compressed", id="foreign"),
        pytest.param(packed([listed(9, 1)])[:-3], id="cut"),
        pytest.param(packed([listed(9, 1)]) + b"x", id="longer"),
        pytest.param(zlib.compress(plain() + b"x"), id="longer inside"),
        pytest.param(zlib.compress(plain()[:-1]), id="cut inside"),
        pytest.param(zlib.compress(b"\xff\xff\xff\xff" + plain()[4:]), id="too many"),
        pytest.param(zlib.compress((1).to_bytes(4, "little") + b"\x00\x00\x00\x00\x01"), id="twice the same place"),
        pytest.param(zlib.compress((1).to_bytes(4, "little") + b"\x01\x10\x00\x00\x01"), id="beyond the last place"),
        pytest.param(zlib.compress(bytes(10_000_000)), id="a bomb"),
    ],
)
def test_damaged_lists_are_refused(data):
    with pytest.raises(codec.CorruptStreamError):
        unpacked(data, [1], PLACES)
