"""Codec work -> threads, with a bound on how much may work and wait.

The event loop never runs codec work. A request takes a slot before its body is read and gives it back when its work
has really ended: a deadline answers the client, but a thread that is still busy keeps its slot.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from service.problems import QueueFullError

T = TypeVar("T")

SMOOTHING = 0.2
"""Weight of the newest job in the running mean of job times."""


@dataclass(frozen=True)
class Timed(Generic[T]):
    """A result and what it waited for.

    Attributes:
        value: What the job returned.
        queue_s: Time between submission and start.
    """

    value: T
    queue_s: float


class CodecWorkers:
    """A bounded thread pool.

    Args:
        workers: Jobs that run at once.
        slots: Requests that may hold a slot: reading their body, waiting or running.
    """

    def __init__(self, workers: int, slots: int) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="codec")
        self.workers, self.slots, self.taken = workers, slots, 0
        self._mean_job_s = 1.0

    def slot(self) -> Slot:
        """Take a slot at once; QueueFullError if none is left. Event loop only."""
        if self.taken >= self.slots:
            raise QueueFullError(self.retry_after_s())
        return Slot(self)

    def retry_after_s(self) -> int:
        """Whole seconds, at least 1, after which the jobs taken so far should be done."""
        return max(1, math.ceil(self.taken * self._mean_job_s / self.workers))

    async def run(self, job: Callable[[], T]) -> Timed[T]:
        """Run a job in a thread; its exceptions pass through."""
        submitted = time.perf_counter()

        def timed() -> tuple[T, float, float]:
            started = time.perf_counter()
            value = job()
            return value, started - submitted, time.perf_counter() - started

        value, queue_s, job_s = await asyncio.get_running_loop().run_in_executor(self._pool, timed)
        self._mean_job_s += SMOOTHING * (job_s - self._mean_job_s)
        return Timed(value, queue_s)

    def close(self) -> None:
        """Drop what waits; what runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Slot:
    """A place in the queue, held as a context manager; see CodecWorkers.slot."""

    def __init__(self, workers: CodecWorkers) -> None:
        self._workers = workers
        self._running: asyncio.Task[object] | None = None
        workers.taken += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running is None or self._running.done():
            self._give_back()
        else:
            self._running.add_done_callback(self._abandoned)

    async def run(self, job: Callable[[], T]) -> Timed[T]:
        """Run this request's one job; leaving early (deadline) leaves the thread to end by itself."""
        task = asyncio.ensure_future(self._workers.run(job))
        self._running = task
        return await asyncio.shield(task)

    def _give_back(self) -> None:
        self._workers.taken -= 1

    def _abandoned(self, task: asyncio.Task[object]) -> None:
        self._give_back()
        if not task.cancelled():
            task.exception()  # read it, or asyncio logs that nobody did
