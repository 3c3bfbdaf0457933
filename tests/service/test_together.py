"""Requests in company get what each would get alone; tests/bench/batching.py has the same with a thousand."""

from __future__ import annotations

from tests.service.mixed import wrong_answers


def test_two_hundred_mixed_requests_at_once_are_each_alone(models):
    wrong, sizes = wrong_answers(models, count=200, threads=12)
    assert not wrong
    assert sum(sizes[items] for items in range(2, 9)) > 20, "hardly a batch formed"
    assert max(sizes) <= 8
