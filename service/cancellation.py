"""Request -> its work: one token that says stop, read between steps and wherever work waits."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

Reason = Literal["deadline", "disconnect", "drain"]
Stage = Literal["pool", "queue", "step"]
"""Where work was stopped: waiting for a thread, waiting for a batch, between two tile steps."""


class StoppedError(Exception):
    """A request's work was stopped before it was done.

    Attributes:
        reason: Why.
        stage: Where.
    """

    def __init__(self, reason: Reason, stage: Stage) -> None:
        super().__init__(f"the work was stopped ({reason}); the request may be sent again")
        self.reason, self.stage = reason, stage


class Cancellation:
    """A request's token; every method may be called from any thread and returns at once.

    Args:
        deadline_s: Seconds from now after which the token stops by itself; None: never.
        clock: Seconds, monotonic.
    """

    def __init__(self, deadline_s: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.deadline = math.inf if deadline_s is None else clock() + deadline_s
        self._reason: Reason | None = None
        self._listeners: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    @property
    def reason(self) -> Reason | None:
        """Why work must stop; None while it may go on."""
        if self._reason is None and self._clock() >= self.deadline:
            return "deadline"
        return self._reason

    @property
    def left_s(self) -> float:
        """Seconds to the deadline, negative after it; inf without one."""
        return self.deadline - self._clock()

    def cancel(self, reason: Reason) -> None:
        """Stop the work; the first reason stays."""
        with self._lock:
            self._reason = self._reason or reason
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()

    def check(self, stage: Stage) -> None:
        """Raise StoppedError if work must stop."""
        if (reason := self.reason) is not None:
            raise StoppedError(reason, stage)

    @contextmanager
    def listening(self, listener: Callable[[], object]) -> Iterator[None]:
        """Have `cancel` call the listener, in the thread that cancels; not told of the deadline."""
        with self._lock:
            self._listeners.append(listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)
