"""Tile steps -> batches -> the device, by a few driver threads.

    pool thread -> BatchRunner.run(step) -> Batcher -> driver thread -> Execution -> outcome, back in the pool thread

A pool thread waits for each of its steps, so a request has one step here at a time.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from typing import Any, Literal, TypeVar, cast

import structlog

from service import codec
from service.batcher import Batch, Batcher, Bounds, Waiting
from service.cancellation import Cancellation, StoppedError
from service.codec.clock import Clock
from service.execution import Execution, Observe, Waiter, unobserved

R = TypeVar("R")

STUCK_S = 120.0
"""A batch that runs this long is taken for one that never ends."""
AUTO_PIXELS = {"cpu": 8 * 128 * 128, "cuda": 4 * 1024 * 1024}
"""Most pixels of a batch where none are set. On a CPU tiles of 256 x 256 and more gain little or nothing from company
(tests/bench/batching.py); for CUDA nothing has been measured yet."""


def bounds_of(
    device: str,
    batching: Literal["auto", "on", "off"],
    max_batch_items: int,
    max_batch_pixels: int,
    max_batch_delay_ms: float,
    device_drivers: int,
    waiting: int,
) -> Bounds:
    """Settings -> bounds.

    Args:
        device: `cpu` or `cuda`.
        batching: `auto` and `on` batch, `on` without the device's own bound on pixels; `off` never.
        max_batch_items: Most steps in a batch.
        max_batch_pixels: Most pixels in a batch; 0: by device.
        max_batch_delay_ms: How long a step may wait for company.
        device_drivers: Driver threads; 0: two, one of which codes while the other one's graphs run.
        waiting: Threads that may wait for a step.
    """
    drivers = device_drivers or 2
    return Bounds(
        items=1 if batching == "off" else max_batch_items,
        pixels=max_batch_pixels or (AUTO_PIXELS[device] if batching == "auto" else sys.maxsize),
        delay_s=max_batch_delay_ms / 1000,
        slots=max(1, drivers - 1),
        drivers=drivers,
        waiting=waiting,
    )


class Device:
    """The driver threads and what waits for them. Threads start with the first step.

    Args:
        bounds: Of batches, and the number of threads.
        observe: As in Execution.
        clock: Seconds, monotonic; the tokens' clock.
    """

    def __init__(
        self, bounds: Bounds, observe: Observe = unobserved, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._batcher: Batcher[Waiter] = Batcher(bounds)
        self._execution, self._clock = Execution(observe, clock), clock
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def runner(self, cancel: Cancellation) -> BatchRunner:
        """What runs the steps of one request."""
        return BatchRunner(self, cancel)

    def submit(self, step: codec.Step[Any], cancel: Cancellation) -> Waiter:
        """Put a step in line.

        Raises:
            StoppedError: Its request was stopped, or the device is closed.
            FullError: Too many steps wait.
        """
        cancel.check("step")
        with self._changed:
            if self._closed:
                raise StoppedError("drain", "queue")
            waiter = Waiter(step, cancel, self._clock())
            self._batcher.offer(waiter, waiter.accepted_s)
            self._keep_threads()
            self._changed.notify_all()
        return waiter

    def refuse_stopped(self) -> None:
        """Refuse what waits though its token says stop. Any thread; drivers do it as well, but they may be busy."""
        with self._changed:
            self._refuse(self._batcher.take_stopped())

    @property
    def failure(self) -> str | None:
        """Why the device does not work; None: it does. A device that failed is tried again after RECOVERY_S."""
        now_s = self._clock()
        with self._changed:
            if self._closed:
                return "the device is closed"
            if any(now_s - batch.begun_s > STUCK_S for batch in self._batcher.running):
                return "a batch does not end"
        return self._execution.failure

    def waiting(self) -> Mapping[str, Waiting]:
        """What waits for a batch, by operation."""
        with self._changed:
            return self._batcher.waiting(self._clock())

    def close(self) -> None:
        """Refuse what waits; what runs ends by itself, and then its thread."""
        with self._changed:
            self._closed = True
            for waiter in self._batcher.clear():
                waiter.outcome.set_exception(StoppedError("drain", "queue"))
            self._changed.notify_all()

    def _keep_threads(self) -> None:
        """Start the drivers, and again those that died."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        while len(self._threads) < self._batcher.bounds.drivers:
            thread = threading.Thread(target=self._drive, name="device", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _drive(self) -> None:
        while (batch := self._next_batch()) is not None:
            try:
                self._execution.run(batch)
            except BaseException as error:  # noqa: BLE001  not even SystemExit takes the driver with it
                structlog.get_logger(__name__).error("a step tried to end its thread", exc_info=error)
            with self._changed:
                self._batcher.finished(batch, self._clock())
                self._changed.notify_all()
            for waiter in batch.items:
                if not waiter.outcome.done():
                    waiter.outcome.set_exception(codec.DeviceError("the device failed; send the picture again later"))

    def _next_batch(self) -> Batch[Waiter] | None:
        """Wait for the next batch; None once the device is closed."""
        with self._changed:
            while not self._closed:
                turn = self._batcher.turn(self._clock())
                self._refuse(turn.refused)
                if turn.batch is not None:
                    return turn.batch
                timeout_s = self._batcher.wake_at() - self._clock()
                self._changed.wait(min(max(timeout_s, 0.0), threading.TIMEOUT_MAX))
        return None

    def _refuse(self, waiters: Sequence[Waiter]) -> None:
        for waiter in waiters:
            waiter.outcome.set_exception(StoppedError(waiter.cancel.reason or "deadline", "queue"))


class BatchRunner:
    """Runs the steps of one request in batches with those of others; a codec.TileRunner.

    Args:
        device: Where.
        cancel: The request's token: a stopped request stops at its next step.
    """

    def __init__(self, device: Device, cancel: Cancellation) -> None:
        self._device, self._cancel = device, cancel

    def run(self, step: codec.Step[R], clock: Clock) -> R:
        """Run a step; adds `queue` to the clock.

        Raises:
            StoppedError: The request was stopped before the step ran.
            FullError: Too many steps wait.
            DeviceError: The device failed.
        """
        waiter = self._device.submit(step, self._cancel)
        with self._cancel.listening(self._device.refuse_stopped):
            # Drivers may all be busy when the deadline comes, so the waiting thread looks after its own.
            while self._cancel.reason is None and not waiter.outcome.done():
                wait([waiter.outcome], min(max(0.0, self._cancel.left_s), threading.TIMEOUT_MAX))
            self._device.refuse_stopped()
            outcome = waiter.outcome.result()
        for room, seconds in {**outcome.seconds, "queue": outcome.queue_s}.items():
            clock.seconds[room] += seconds
        return cast("R", outcome.value)
