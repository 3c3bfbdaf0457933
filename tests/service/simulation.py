"""The batcher under simulated time: arrivals, cancellations and batch ends as events, and a log of what happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from service.batcher import Batch, Batcher, Bounds, FullError
from service.cancellation import Cancellation


@dataclass(frozen=True)
class Arrival:
    """An item to come. Times are whole numbers, so that sums are exact."""

    at_s: int
    key: str
    pixels: int
    deadline_s: int
    cancelled_after_s: int | None


@dataclass(eq=False)
class Item:
    """An item that came."""

    number: int
    key: str
    pixels: int
    cancel: Cancellation
    accepted_s: float
    op: str = "encode"


@dataclass
class Log:
    """What happened, with times."""

    accepted: list[Item] = field(default_factory=list)
    turned_away: list[tuple[int, int]] = field(default_factory=list)
    batches: list[tuple[float, Batch[Item]]] = field(default_factory=list)
    refused: list[tuple[float, Item]] = field(default_factory=list)
    stopped_at: dict[int, float] = field(default_factory=dict)


class Simulation:
    """Runs arrivals through a batcher; every claim that must hold at all times is asserted on the way.

    Args:
        bounds: Of the batcher.
        arrivals: In any order.
        work_s: Seconds each batch takes, in turn.
    """

    def __init__(self, bounds: Bounds, arrivals: Sequence[Arrival], work_s: Sequence[int]) -> None:
        self.bounds, self.work_s, self.now_s, self.log = bounds, work_s, 0.0, Log()
        self.batcher: Batcher[Item] = Batcher(bounds)
        self.arrivals = sorted(arrivals, key=lambda a: a.at_s)
        self.waiting: list[Item] = []
        self.cancels: list[tuple[float, Item]] = []
        self.ends: list[tuple[float, Batch[Item]]] = []

    def run(self) -> Log:
        """Until nothing is left to happen."""
        numbered = list(enumerate(self.arrivals))
        while numbered or self.cancels or self.ends or self.waiting:
            moments = [a.at_s for _, a in numbered[:1]] + [t for t, _ in self.cancels] + [t for t, _ in self.ends]
            self.now_s = max(self.now_s, min([*moments, self.batcher.wake_at()]))
            for end in [e for e in self.ends if e[0] <= self.now_s]:
                self.ends.remove(end)
                self.batcher.finished(end[1], self.now_s)
            for cancel in [c for c in self.cancels if c[0] <= self.now_s]:
                self.cancels.remove(cancel)
                self.log.stopped_at.setdefault(cancel[1].number, self.now_s)
                cancel[1].cancel.cancel("disconnect")
            while numbered and numbered[0][1].at_s <= self.now_s:
                self._arrive(*numbered.pop(0))
            self._turns()
        return self.log

    def _arrive(self, number: int, arrival: Arrival) -> None:
        cancel = Cancellation(arrival.deadline_s, clock=lambda: self.now_s)
        item = Item(number, arrival.key, arrival.pixels, cancel, self.now_s)
        try:
            self.batcher.offer(item, self.now_s)
        except FullError:
            self.log.turned_away.append((number, len(self.waiting)))
            return
        self.waiting.append(item)
        self.log.accepted.append(item)
        if arrival.cancelled_after_s is not None:
            self.cancels.append((self.now_s + arrival.cancelled_after_s, item))

    def _turns(self) -> None:
        while True:
            turn = self.batcher.turn(self.now_s)
            for item in turn.refused:
                self.waiting.remove(item)
                self.log.refused.append((self.now_s, item))
            if turn.batch is None:
                break
            self._leaves(turn.batch)
        self._nothing_waits_that_may_go()

    def _leaves(self, batch: Batch[Item]) -> None:
        late = [item for item in self.waiting if self.now_s >= item.accepted_s + self.bounds.delay_s]
        assert all(item.accepted_s >= batch.items[0].accepted_s for item in late), "an older item was passed over"
        for item in batch.items:
            self.waiting.remove(item)
        self.log.batches.append((self.now_s, batch))
        self.ends.append((self.now_s + self.work_s[len(self.log.batches) % len(self.work_s)], batch))

    def _nothing_waits_that_may_go(self) -> None:
        running = len(self.ends)
        assert running == len(self.batcher.running) <= self.bounds.drivers
        assert len(self.waiting) == len(self.batcher) <= self.bounds.waiting
        assert running >= self.bounds.slots or not self.waiting, "the device is idle and something waits"
        if running < self.bounds.drivers:
            ages = [self.now_s - item.accepted_s for item in self.waiting]
            assert max(ages, default=0) < self.bounds.delay_s or not ages, "an item waits longer than the delay"
            for key in {item.key for item in self.waiting}:
                same = [item for item in self.waiting if item.key == key]
                assert len(same) < self.bounds.items, "a full batch waits"
                assert sum(item.pixels for item in same) <= self.bounds.pixels, "a full batch waits"
