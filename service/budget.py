"""How much may be in the queue: requests from their first header on, and pixels from their picture's header on.

A place is held until the work has really ended: a deadline or a lost client answers at once, but a thread that is
still busy keeps what it takes. Changed on the event loop only; gauges may read it from anywhere.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

from service.problems import QueueFullError

SMOOTHING = 0.2
"""Weight of the newest job in the running mean of job times."""
FIRST_GUESS_S = 1.0
LONGEST_RETRY_S = 60


class Budget:
    """The queue's two bounds.

    Args:
        requests: Most requests reading their body, waiting or working.
        pixels: Most pixels waiting or working.
        workers: Jobs that run at once; for Retry-After.
        clock: Seconds.
    """

    def __init__(self, requests: int, pixels: int, workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.requests, self.pixels, self._workers, self._clock = requests, pixels, workers, clock
        self._places: dict[int, Place] = {}
        self._mean_job_s = FIRST_GUESS_S

    def enter(self, op: str) -> Place:
        """Take a place in the queue; QueueFullError if there is none."""
        if len(self._places) >= self.requests:
            raise QueueFullError(self.retry_after_s())
        place = Place(self, op, self._clock())
        self._places[id(place)] = place
        return place

    def retry_after_s(self) -> int:
        """Whole seconds after which what is in the queue now should be done, between 1 and a minute."""
        expected_s = len(self._places) * self._mean_job_s / self._workers
        return min(max(1, math.ceil(expected_s)), LONGEST_RETRY_S)

    def finished(self, job_s: float) -> None:
        """Learn how long a job took."""
        self._mean_job_s += SMOOTHING * (job_s - self._mean_job_s)

    @property
    def taken(self) -> int:
        """Places held."""
        return len(self._places)

    def requests_of(self, op: str) -> int:
        """Requests of an operation in the queue."""
        return sum(place.op == op for place in self.places())

    def pixels_of(self, op: str) -> int:
        """Pixels of an operation in the queue."""
        return sum(place.pixels for place in self.places() if place.op == op)

    def oldest_age_s(self) -> float:
        """Age of the oldest request in the queue; 0 if it is empty."""
        return max((self._clock() - place.since for place in self.places()), default=0.0)

    def places(self) -> Iterable[Place]:
        """A copy of what is held."""
        return tuple(self._places.copy().values())

    def reserve(self, place: Place, pixels: int) -> None:
        """Add a picture's pixels to a place; QueueFullError if there are too many."""
        if sum(held.pixels for held in self._places.values()) + pixels > self.pixels:
            raise QueueFullError(self.retry_after_s(), "pixels")
        place.pixels += pixels

    def leave(self, place: Place) -> None:
        """Give a place back, once or more often."""
        self._places.pop(id(place), None)


class Place:
    """One request's place in the queue.

    Attributes:
        op: The operation.
        since: When it came, by the budget's clock.
        pixels: What it has reserved.
    """

    def __init__(self, budget: Budget, op: str, since: float) -> None:
        self._budget, self.op, self.since, self.pixels = budget, op, since, 0

    def reserve(self, pixels: int) -> None:
        """Reserve pixels; QueueFullError if the queue has no room for them."""
        self._budget.reserve(self, pixels)

    def leave(self) -> None:
        """Give the place back."""
        self._budget.leave(self)
