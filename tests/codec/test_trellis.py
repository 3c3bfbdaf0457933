"""trellis: every bin has one place, checks follow from the others, and no layout loses a bin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.codec.trellis import CLASSES, GROUPS, REGISTER_BITS, TAPS, WIDTH, Trellis

FIRST = CLASSES[0][0]
scale_indices = st.lists(st.integers(0, 69), max_size=400)


def trellis_of(scales: list[int]) -> Trellis:
    return Trellis.of(np.array(scales, np.int16))


@given(scales=scale_indices)
def test_every_bin_that_is_not_free_has_one_place(scales):
    places = trellis_of(scales).places
    assert places.shape[:2] == (GROUPS, WIDTH)
    known = places[places >= 0].tolist()
    assert sorted(known) == [i for i, scale in enumerate(scales) if scale >= FIRST]


@pytest.mark.parametrize(("scale", "size"), CLASSES)
@pytest.mark.parametrize("groups", [1, 2, GROUPS, GROUPS + 1])
def test_each_class_has_groups_of_its_size(scale: int, size: int, groups: int):
    trellis = trellis_of([scale] * size * groups)
    chains = -(-groups // GROUPS)
    assert trellis.places.shape[2] == chains
    if groups % chains == 0:
        assert trellis.checks.size == groups
        assert ((trellis.places >= 0).sum(1) == size).sum() == groups


def test_bins_go_to_the_chains_of_their_class_in_turn_narrow_ones_first():
    (first, size), (second, _) = CLASSES[:2]
    scales = [second - 1, first] * size * GROUPS  # two chains of one class
    places = trellis_of(scales).places[:, [*range(size - 1), -1]].reshape(GROUPS * size, -1)
    narrow, wide = [*range(1, len(scales), 2)], [*range(0, len(scales), 2)]
    assert places.ravel().tolist() == narrow + wide


def codeword(trellis: Trellis, bins: np.ndarray) -> np.ndarray:
    """Bins whose checks are right."""
    bins = bins.copy()
    checks = trellis.checks
    bins[checks] += (bins[checks] ^ trellis.parities(bins)) & 1
    return bins


@given(scales=scale_indices, seed=st.integers(0, 9))
def test_checks_follow_from_all_other_bins(scales, seed):
    trellis = trellis_of(scales)
    bins = np.random.default_rng(seed).integers(-9, 10, len(scales)).astype(np.int32)
    right = codeword(trellis, bins)
    assert (right[trellis.checks] & 1).tolist() == trellis.parities(bins).tolist() == trellis.parities(right).tolist()
    assert (trellis.checks == np.sort(trellis.checks)).all()


def test_the_register_is_that_of_the_document():
    """One bin at a time, in plain numbers, as docs/bitstream.md says it."""
    rng = np.random.default_rng(4)
    scales = rng.integers(8, 40, 900).astype(np.int16)
    trellis = Trellis.of(scales)
    bins = codeword(trellis, rng.integers(-4, 5, 900).astype(np.int32))
    for chain in range(trellis.places.shape[2]):
        register = 0
        for group in trellis.places[:, :, chain]:
            for place, tap in zip(group, TAPS.tolist(), strict=True):
                if place >= 0 and bins[place] % 2:
                    register ^= tap
            if group[-1] >= 0:
                assert register % 2 == 0
            register //= 2


def test_taps_fit_the_register_and_every_bin_counts_in_its_own_group():
    assert (TAPS < 2**REGISTER_BITS).all()
    assert (TAPS % 2 == 1).all()


def test_classes_widen_from_first_to_last():
    firsts, sizes = zip(*CLASSES, strict=True)
    assert list(firsts) == sorted(firsts)
    assert list(sizes) == sorted(sizes, reverse=True)
    assert max(sizes) <= WIDTH
