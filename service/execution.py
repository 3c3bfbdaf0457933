"""A batch of waiting steps -> an outcome for each, whatever happens; and the record of whether the device works.

A batch that fails is run again item by item: a bad item fails alone. Entropy coding is part of it: the coder holds
the interpreter lock, so more threads would not make it faster, and with a second driver the device works meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import structlog

from service import codec
from service.batcher import Batch
from service.cancellation import Cancellation
from service.codec.clock import Clock

Observe = Callable[[str, str, int, int], None]
"""Told operation, reason, items and pixels of each batch, by a driver thread."""

FAILURES_TO_FAIL, RECOVERY_S = 3, 10.0
"""So many device errors in a row make the device count as failed, until so long after the last one."""


@dataclass(frozen=True)
class Outcome:
    """A step's result, the seconds its batch spent in each room, and how long it waited for the batch."""

    value: Any
    seconds: Mapping[str, float]
    queue_s: float


@dataclass(frozen=True, eq=False)
class Waiter:
    """A step that waits or runs, and where its outcome goes."""

    step: codec.Step[Any]
    cancel: Cancellation
    accepted_s: float
    outcome: Future[Outcome] = field(default_factory=Future)

    @property
    def op(self) -> str:
        """Of the step."""
        return self.step.op

    @property
    def key(self) -> Hashable:
        """Of the step."""
        return self.step.key

    @property
    def pixels(self) -> int:
        """Of the step."""
        return self.step.pixels


def unobserved(op: str, reason: str, items: int, pixels: int) -> None:
    """An Observe that keeps nothing."""


class Execution:
    """Runs batches, in any number of threads.

    Args:
        observe: Told of each batch; a retry of a single item has the reason `retry`.
        clock: Seconds, monotonic.
    """

    def __init__(self, observe: Observe = unobserved, clock: Callable[[], float] = time.monotonic) -> None:
        self._observe, self._clock = observe, clock
        self._failures, self._last_failure_s, self._last_error = 0, 0.0, ""

    @property
    def failure(self) -> str | None:
        """Why the device does not work; None: it does, or it is time to try it again."""
        if self._failures >= FAILURES_TO_FAIL and self._clock() < self._last_failure_s + RECOVERY_S:
            return self._last_error
        return None

    def run(self, batch: Batch[Waiter]) -> None:
        """Run a batch and give each of its waiters an outcome or an error."""
        self._tell(batch.op, batch.reason, len(batch.items), batch.pixels)
        try:
            self._together(batch.items, batch.begun_s)
        except Exception as error:  # noqa: BLE001  whatever it was, somebody waits for it
            if len(batch.items) == 1:
                self._fail(batch.items[0], error)
                return
            for waiter in batch.items:
                self._again(waiter, batch.begun_s)

    def _again(self, waiter: Waiter, begun_s: float) -> None:
        """Run one item of a batch that failed."""
        try:
            waiter.cancel.check("queue")
            self._tell(waiter.op, "retry", 1, waiter.pixels)
            self._together([waiter], begun_s)
        except Exception as error:  # noqa: BLE001  whatever it was, somebody waits for it
            self._fail(waiter, error)

    def _together(self, waiters: Sequence[Waiter], begun_s: float) -> None:
        clock = Clock()
        values = type(waiters[0].step).together([waiter.step for waiter in waiters], clock)
        assert len(values) == len(waiters)
        self._failures = 0
        for waiter, value in zip(waiters, values, strict=True):
            waiter.outcome.set_result(Outcome(value, clock.seconds, begun_s - waiter.accepted_s))

    def _fail(self, waiter: Waiter, error: Exception) -> None:
        if not _is_the_devices(error):
            waiter.outcome.set_exception(error)
            return
        structlog.get_logger(__name__).error("the device failed", op=waiter.op, exc_info=error)
        self._failures, self._last_failure_s = self._failures + 1, self._clock()
        self._last_error = f"the device failed: {type(error).__name__}"
        refusal = codec.DeviceError("the device failed at this picture; send it again later")
        refusal.__cause__ = error
        waiter.outcome.set_exception(refusal)

    def _tell(self, op: str, reason: str, items: int, pixels: int) -> None:
        try:
            self._observe(op, reason, items, pixels)
        except Exception as error:  # noqa: BLE001  statistics must not fail work
            structlog.get_logger(__name__).error("a batch was not recorded", exc_info=error)


def _is_the_devices(error: Exception) -> bool:
    """Whether the runtime failed, rather than the codec refused: its exceptions have no common base class."""
    return isinstance(error, MemoryError) or type(error).__module__.startswith("onnxruntime.")
