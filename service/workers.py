"""Codec work -> threads: what a request does beside its tile steps, and where it waits for them.

The event loop never runs codec work. How many may wait for a thread is bounded at the door, in `budget`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.cancellation import Cancellation, StoppedError

T = TypeVar("T")


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
    """A thread pool for jobs that can be stopped.

    Args:
        workers: Jobs that run at once.
    """

    def __init__(self, workers: int) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="codec")

    async def run(self, job: Callable[[], T], cancel: Cancellation) -> Timed[T]:
        """Run a job in a thread; its exceptions pass through.

        Args:
            job: What to do; it reads the token itself.
            cancel: Stops the job at once while it waits for a thread; what runs is waited for.

        Raises:
            StoppedError: The job was stopped before it began.
        """
        submitted = time.perf_counter()

        def timed() -> Timed[T]:
            cancel.check("pool")
            queue_s = time.perf_counter() - submitted
            return Timed(job(), queue_s)

        future = self._pool.submit(timed)
        with cancel.listening(future.cancel):
            if cancel.reason is not None:
                future.cancel()
            try:
                return await asyncio.wrap_future(future)
            except asyncio.CancelledError:
                if future.cancelled() and cancel.reason is not None:
                    raise StoppedError(cancel.reason, "pool") from None
                raise

    def close(self) -> None:
        """Drop what waits; what runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)
