"""batcher: whatever arrives, is cancelled or expires, bounds hold and nothing is lost. Time is simulated."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from service.batcher import Batcher, Bounds, Waiting
from service.cancellation import Cancellation
from tests.service.simulation import Arrival, Item, Simulation

KEYS = {"small": 4, "medium": 16, "large": 100}
TIMES = st.integers(0, 40)


@st.composite
def bounds(draw: st.DrawFn) -> Bounds:
    slots = draw(st.integers(1, 3))
    return Bounds(
        items=draw(st.integers(1, 5)),
        pixels=draw(st.integers(1, 120)),
        delay_s=draw(st.integers(0, 6)),
        slots=slots,
        drivers=slots + draw(st.integers(0, 2)),
        waiting=draw(st.integers(1, 12)),
    )


def arrivals() -> st.SearchStrategy[list[Arrival]]:
    cancelled = st.none() | st.integers(1, 20)
    one = st.tuples(TIMES, st.sampled_from(sorted(KEYS)), st.integers(1, 50), cancelled)
    return st.lists(one.map(lambda t: Arrival(t[0], t[1], KEYS[t[1]], t[2], t[3])), min_size=1, max_size=30)


WORK = st.lists(st.integers(1, 12), min_size=1, max_size=6)


@given(bounds(), arrivals(), WORK)
def test_every_accepted_item_leaves_exactly_once_and_in_time(bounds, arrivals, work):
    log = Simulation(bounds, arrivals, work).run()
    left = Counter([i.number for _, b in log.batches for i in b.items] + [i.number for _, i in log.refused])
    assert left == Counter(item.number for item in log.accepted)
    assert len(log.accepted) + len(log.turned_away) == len(arrivals)
    assert all(waiting == bounds.waiting for _, waiting in log.turned_away)
    for now, batch in log.batches:
        for item in batch.items:
            assert now < item.cancel.deadline
            assert item.number not in log.stopped_at or now < log.stopped_at[item.number]
    for now, item in log.refused:
        # At the very moment, not later: nobody waits for an answer that cannot come.
        assert now == min(item.cancel.deadline, log.stopped_at.get(item.number, item.cancel.deadline))


@given(bounds(), arrivals(), WORK)
def test_batches_keep_their_bounds_and_their_order(bounds, arrivals, work):
    log = Simulation(bounds, arrivals, work).run()
    last: dict[str, int] = {}
    order = {item.number: place for place, item in enumerate(log.accepted)}
    for now, batch in log.batches:
        assert 1 <= len(batch.items) <= bounds.items
        assert batch.pixels <= bounds.pixels or len(batch.items) == 1
        (key,) = {item.key for item in batch.items}
        for item in batch.items:
            assert order[item.number] > last.get(key, -1), "overtaken within a key"
            last[key] = order[item.number]
        if batch.reason == "delay":
            assert now >= batch.items[0].accepted_s + bounds.delay_s


@given(st.integers(1, 6), st.lists(st.sampled_from("abc"), min_size=1, max_size=30))
def test_on_a_busy_device_no_key_waits_for_younger_ones(items, keys):
    """One driver, everything there from the start: batches leave in the order of their oldest items."""
    bounds = Bounds(items, pixels=1000, delay_s=3, slots=1, drivers=1, waiting=100)
    log = Simulation(bounds, [Arrival(i, key, 1, 10_000, None) for i, key in enumerate(keys)], [50]).run()
    heads = [batch.items[0].number for _, batch in log.batches]
    assert heads == sorted(heads)


def simulate(bounds: Bounds, *arrivals: Arrival, work_s: int = 10) -> list[tuple[float, int, str]]:
    log = Simulation(bounds, arrivals, [work_s]).run()
    return [(now, len(batch.items), batch.reason) for now, batch in log.batches]


def test_the_three_reasons_to_leave():
    bounds = Bounds(items=3, pixels=1000, delay_s=5, slots=1, drivers=2, waiting=50)
    alone = [Arrival(0, "a", 1, 99, None)]
    assert simulate(bounds, *alone) == [(0, 1, "idle")]
    # The device works: the second waits the delay for company, but a full batch goes at once.
    assert simulate(bounds, *alone, Arrival(1, "a", 1, 99, None)) == [(0, 1, "idle"), (6, 1, "delay")]
    three = [Arrival(2, "a", 1, 99, None)] * 3
    assert simulate(bounds, *alone, *three) == [(0, 1, "idle"), (2, 3, "full")]
    # Both drivers work: what comes meanwhile leaves together when one is free.
    later = [Arrival(7, "a", 1, 99, None)] * 2
    assert simulate(bounds, *alone, *three, *later) == [(0, 1, "idle"), (2, 3, "full"), (12, 2, "idle")]


def test_an_item_larger_than_a_batch_goes_alone():
    bounds = Bounds(items=8, pixels=10, delay_s=5, slots=1, drivers=1, waiting=50)
    done = simulate(bounds, *[Arrival(0, "a", 100, 99, None)] * 2, *[Arrival(0, "b", 5, 99, None)] * 3)
    assert [(items, reason) for _, items, reason in done] == [(1, "full"), (1, "full"), (2, "full"), (1, "idle")]


def test_what_waits_is_told_and_the_backlog_is_estimated_from_what_batches_took():
    batcher: Batcher[Item] = Batcher(Bounds(items=8, pixels=1000, delay_s=5, slots=1, drivers=2, waiting=50))

    def offer(number: int, at_s: float, op: str, pixels: int) -> None:
        batcher.offer(Item(number, op, pixels, Cancellation(), at_s, op), at_s)

    offer(0, 0.0, "encode", 100)
    batch = batcher.turn(0.0).batch
    assert batch is not None
    assert (dict(batcher.waiting(0.0)), batcher.backlog_s()) == ({}, 0.0)
    for number, at_s in ((1, 1.0), (2, 2.0)):
        offer(number, at_s, "encode", 100)
    offer(3, 3.0, "decode", 7)
    assert batcher.waiting(4.0) == {"encode": Waiting(2, 200, 3.0), "decode": Waiting(1, 7, 1.0)}
    batcher.finished(batch, 4.0)  # 100 pixels took 4 s, so 200 take 8, two drivers 4; of decode nothing is known
    assert batcher.backlog_s() == 4.0
    assert [item.number for item in batcher.clear()] == [1, 2, 3]
    assert len(batcher) == 0
