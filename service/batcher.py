"""Items that wait -> batches, as pure logic: no thread, no clock of its own.

Items of one key wait in one line and leave it from the front, so nothing is lost, doubled or overtaken. Whoever owns
the batcher asks for a turn whenever something has changed or `wake_at` has come:

    fewer batches run than slots   the oldest item leaves at once with those behind it: an idle device never waits
    up to as many as drivers       it leaves if its batch is full, or once it has waited the delay
    a driver for each running      it waits

Between keys the oldest item goes first, so none can starve. Items whose token says stop leave before a batch forms.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from service.cancellation import Cancellation

SMOOTHING = 0.2
"""Weight of the newest batch in the running mean of seconds per pixel."""


class Item(Protocol):
    """What the batcher needs to know of an item."""

    @property
    def op(self) -> str:
        """For statistics."""

    @property
    def key(self) -> Hashable:
        """Items of equal keys may share a batch."""

    @property
    def pixels(self) -> int:
        """Its share of a batch's pixels."""

    @property
    def cancel(self) -> Cancellation:
        """Its request's token."""


T = TypeVar("T", bound=Item)


@dataclass(frozen=True)
class Bounds:
    """What a batcher keeps.

    Attributes:
        items: Most items in a batch.
        pixels: Most pixels in a batch; an item larger than this goes alone.
        delay_s: How long an item may wait for company while a driver is free.
        slots: Batches that keep the device busy.
        drivers: Batches that run at once; those beyond `slots` prepare and finish while the device works.
        waiting: Most items that wait.
    """

    items: int
    pixels: int
    delay_s: float
    slots: int
    drivers: int
    waiting: int

    def __post_init__(self) -> None:
        assert min(self.items, self.pixels, self.slots, self.waiting) >= 1
        assert self.drivers >= self.slots
        assert self.delay_s >= 0


@dataclass(frozen=True, eq=False)
class Batch(Generic[T]):
    """Items of one key, in the order they were accepted.

    Attributes:
        items: At least one.
        reason: Why it left: the batch was full, the device was idle, or the delay was over.
        begun_s: When.
    """

    items: tuple[T, ...]
    reason: Literal["full", "idle", "delay"]
    begun_s: float

    @property
    def op(self) -> str:
        """Of all items."""
        return self.items[0].op

    @property
    def pixels(self) -> int:
        """Of all items together."""
        return sum(item.pixels for item in self.items)


@dataclass(frozen=True)
class Turn(Generic[T]):
    """What to do now: items to refuse, and the batch to run, if any."""

    refused: tuple[T, ...]
    batch: Batch[T] | None


@dataclass(frozen=True)
class Waiting:
    """What waits of one operation."""

    requests: int
    pixels: int
    oldest_age_s: float


class FullError(Exception):
    """As many items wait as may.

    Attributes:
        retry_after_s: Whole seconds after which what waits now should be done.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("the queue is full; send the same request again later")
        self.retry_after_s = retry_after_s


class Batcher(Generic[T]):
    """The lines and what runs.

    Args:
        bounds: What is kept.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._lines: dict[Hashable, deque[tuple[float, T]]] = {}
        self._running: set[Batch[T]] = set()
        self._seconds_per_pixel: dict[str, float] = defaultdict(float)

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    @property
    def running(self) -> frozenset[Batch[T]]:
        """Batches that were taken and have not finished."""
        return frozenset(self._running)

    def offer(self, item: T, now_s: float) -> None:
        """Accept an item; FullError if too many wait."""
        if len(self) >= self.bounds.waiting:
            raise FullError(1 + int(self.backlog_s()))
        self._lines.setdefault(item.key, deque()).append((now_s, item))

    def turn(self, now_s: float) -> Turn[T]:
        """Take out what must be refused, then the next batch if one may leave."""
        refused = self.take_stopped()
        if len(self._running) >= self.bounds.drivers:
            return Turn(refused, None)
        for key, line in sorted(self._lines.items(), key=lambda entry: entry[1][0][0]):
            count, full = self._fitting(line)
            idle, late = len(self._running) < self.bounds.slots, now_s >= line[0][0] + self.bounds.delay_s
            if full or idle or late:
                items = tuple(line.popleft()[1] for _ in range(count))
                if not line:
                    del self._lines[key]
                batch = Batch(items, "full" if full else "idle" if idle else "delay", now_s)
                self._running.add(batch)
                return Turn(refused, batch)
        return Turn(refused, None)

    def take_stopped(self) -> tuple[T, ...]:
        """Take out the items whose token says stop."""
        refused: list[T] = []
        for key, line in list(self._lines.items()):
            kept: deque[tuple[float, T]] = deque()
            for accepted_s, item in line:
                if item.cancel.reason is None:
                    kept.append((accepted_s, item))
                else:
                    refused.append(item)
            if kept:
                self._lines[key] = kept
            else:
                del self._lines[key]
        return tuple(refused)

    def finished(self, batch: Batch[T], now_s: float) -> None:
        """A batch of an earlier turn has ended, well or badly."""
        self._running.remove(batch)
        old, new = self._seconds_per_pixel[batch.op], (now_s - batch.begun_s) / max(1, batch.pixels)
        self._seconds_per_pixel[batch.op] = old + SMOOTHING * (new - old) if old else new

    def clear(self) -> tuple[T, ...]:
        """Take out everything that waits."""
        items = tuple(item for _, item in self._waiting())
        self._lines.clear()
        return items

    def wake_at(self) -> float:
        """When the next turn is due if nothing else changes; inf if time alone changes nothing."""
        moments = [item.cancel.deadline for _, item in self._waiting()]
        if len(self._running) < self.bounds.drivers:
            moments += [line[0][0] + self.bounds.delay_s for line in self._lines.values()]
        return min(moments, default=math.inf)

    def waiting(self, now_s: float) -> Mapping[str, Waiting]:
        """What waits, by operation."""
        requests: Counter[str] = Counter()
        pixels: Counter[str] = Counter()
        oldest: dict[str, float] = {}
        for accepted_s, item in self._waiting():
            requests[item.op] += 1
            pixels[item.op] += item.pixels
            oldest[item.op] = min(oldest.get(item.op, accepted_s), accepted_s)
        return {op: Waiting(requests[op], pixels[op], now_s - oldest[op]) for op in requests}

    def backlog_s(self) -> float:
        """Seconds the drivers should need for what waits, by what batches took so far."""
        total = sum(self._seconds_per_pixel.get(item.op, 0.0) * item.pixels for _, item in self._waiting())
        return total / self.bounds.drivers

    def _waiting(self) -> Iterator[tuple[float, T]]:
        for line in self._lines.values():
            yield from line

    def _fitting(self, line: deque[tuple[float, T]]) -> tuple[int, bool]:
        """How many items from the front make the next batch, and whether no more of their size would fit."""
        count, pixels = 0, 0
        for _, item in line:
            if count and (count == self.bounds.items or pixels + item.pixels > self.bounds.pixels):
                return count, True
            count, pixels = count + 1, pixels + item.pixels
        return count, count == self.bounds.items or pixels + line[-1][1].pixels > self.bounds.pixels
