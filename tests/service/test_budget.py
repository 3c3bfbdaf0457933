"""The queue's two bounds and what it says of itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.budget import LONGEST_RETRY_S, Budget, Place
from service.problems import QueueFullError


def test_no_more_requests_than_allowed():
    budget = Budget(requests=2, pixels=10, workers=1)
    first, _ = budget.enter("encode"), budget.enter("decode")
    with pytest.raises(QueueFullError, match="requests"):
        budget.enter("encode")
    first.leave()
    first.leave()
    assert budget.taken == 1
    budget.enter("encode")


def test_no_more_pixels_than_allowed_and_a_refused_reservation_takes_none():
    budget = Budget(requests=5, pixels=10, workers=1)
    first, second = budget.enter("encode"), budget.enter("encode")
    first.reserve(6)
    with pytest.raises(QueueFullError, match="pixels"):
        second.reserve(5)
    second.reserve(4)
    assert budget.pixels_of("encode") == 10
    first.leave()
    assert budget.pixels_of("encode") == 4
    assert budget.pixels_of("decode") == 0


def test_retry_after_follows_the_queue_and_the_speed():
    budget = Budget(requests=100, pixels=1, workers=2)
    for _ in range(50):
        budget.finished(4.0)
    for _ in range(5):
        budget.enter("encode")
    assert budget.retry_after_s() == 10
    for _ in range(95):
        budget.enter("encode")
    assert budget.retry_after_s() == LONGEST_RETRY_S
    assert Budget(1, 1, 8).retry_after_s() == 1


def test_the_oldest_request_gives_the_age():
    now = 5.0
    budget = Budget(requests=5, pixels=1, workers=1, clock=lambda: now)
    assert budget.oldest_age_s() == 0
    first = budget.enter("encode")
    now = 7.0
    budget.enter("decode")
    now = 8.0
    assert budget.oldest_age_s() == 3
    first.leave()
    assert budget.oldest_age_s() == 1


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), max_size=60))
def test_bounds_hold_whatever_happens(steps: list[tuple[int, int]]):
    budget, places = Budget(requests=4, pixels=20, workers=1), list[Place]()
    reserved: dict[int, int] = {}
    for kind, value in steps:
        try:
            if kind == 0:
                places.append(budget.enter("encode"))
                reserved[id(places[-1])] = 0
            elif places and kind == 1:
                place = places[value % len(places)]
                place.reserve(value)
                reserved[id(place)] += value
            elif places:
                place = places.pop(value % len(places))
                place.leave()
                del reserved[id(place)]
        except QueueFullError:
            assert len(places) == 4 or sum(reserved.values()) + value > 20
        assert budget.taken == len(places) <= 4
        assert budget.pixels_of("encode") == sum(reserved.values()) <= 20
