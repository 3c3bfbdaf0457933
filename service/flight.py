"""One request's work, from its place in the queue to its result, and the three ways it ends early.

    place -> body -> pixels reserved -> worker thread -> result
    deadline, lost client, end of the drain: the client is answered at once, the thread stops at its next step

A listener waits for the client to go; nothing polls. The place is given back when the thread has really ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from service import codec, peek
from service.admission import read_body
from service.budget import Budget, Place
from service.cancellation import Cancellation, StoppedError
from service.metrics import Metrics
from service.operations import is_stream
from service.problems import DeadlineError, DrainingError, QueueFullError, ServiceError
from service.workers import CodecWorkers, Timed

T = TypeVar("T")

TOO_LATE = "the deadline has passed; send a smaller picture or try again later"


class Flights:
    """Takes requests in and knows those in flight.

    Args:
        workers: Where jobs run.
        budget: What the queue may hold.
        metrics: Refusals and cancellations are counted.
        deadline_s: Longest time from the first header to the result.
        limits: Of a picture; checked by its header.
    """

    def __init__(
        self, workers: CodecWorkers, budget: Budget, metrics: Metrics, deadline_s: float, limits: codec.Limits
    ) -> None:
        self.workers, self.budget, self.metrics = workers, budget, metrics
        self.deadline_s, self.limits = deadline_s, limits
        self._tokens: set[Cancellation] = set()

    @asynccontextmanager
    async def take_off(self, request: Request, op: str) -> AsyncIterator[Flight]:
        """Hold a place in the queue while a block runs, at most until the deadline.

        Raises:
            QueueFullError: The queue has no room.
            DeadlineError: The block took too long.
            DrainingError: The drain ended first.
            ClientDisconnect: The client has gone.
        """
        try:
            place = self.budget.enter(op)
        except QueueFullError:
            self.metrics.rejected.labels("queue_full").inc()
            raise
        flight = Flight(self, request, place)
        self._tokens.add(flight.token)
        try:
            async with asyncio.timeout(self.deadline_s):
                yield flight
        except TimeoutError:
            flight.token.cancel("deadline")
            raise self._ended("deadline") from None
        except StoppedError as stopped:
            raise self._ended(stopped.reason) from None
        except ClientDisconnect:
            flight.token.cancel("disconnect")
            raise
        except codec.CorruptStreamError:
            self.metrics.checksum_mismatches.inc()
            raise
        finally:
            self._tokens.discard(flight.token)
            flight.leave()

    def cancel_all(self) -> None:
        """Stop every job at its next step: the drain has ended."""
        for token in tuple(self._tokens):
            token.cancel("drain")

    def _ended(self, reason: str) -> ServiceError | ClientDisconnect:
        if reason == "disconnect":
            return ClientDisconnect()
        self.metrics.rejected.labels(reason).inc()
        if reason == "deadline":
            return DeadlineError(TOO_LATE)
        return DrainingError("this replica has shut down; send the same request to another")


class Flight:
    """One request in flight; see Flights.take_off.

    Attributes:
        token: Stops the job.
    """

    def __init__(self, flights: Flights, request: Request, place: Place) -> None:
        self._flights, self._request, self._place = flights, request, place
        self.token = Cancellation(flights.deadline_s)
        self._job: asyncio.Task[object] | None = None

    async def body(self, decodes: bool = True) -> bytes:
        """Read the body and, if it will be decoded, reserve the pixels of the picture in it.

        Raises:
            LimitError: The picture is too large.
            QueueFullError: The queue has no room for its pixels.
        """
        data = await read_body(self._request)
        if not decodes:
            return data
        limits = self._flights.limits
        # A stream's header is a few bytes; an image's may be anything, so it is read in a thread.
        pixels = (
            peek.pixels_of(data, limits) if is_stream(data) else await asyncio.to_thread(peek.pixels_of, data, limits)
        )
        try:
            self._place.reserve(pixels)
        except QueueFullError:
            self._flights.metrics.rejected.labels("queue_pixels").inc()
            raise
        return data

    async def run(self, job: Callable[[], T]) -> Timed[T]:
        """Run the request's one job, unless the client goes first."""
        work = asyncio.ensure_future(self._timed(job))
        self._job = work
        gone = asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientDisconnect
            return work.result()
        finally:
            gone.cancel()

    def leave(self) -> None:
        """Give the place back, as soon as the job has ended."""
        if self._job is not None:
            self._job.add_done_callback(self._landed)
            return
        self._place.leave()
        if self.token.reason is not None:
            self._flights.metrics.cancelled.labels("body").inc()

    async def _timed(self, job: Callable[[], T]) -> Timed[T]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        done = await self._flights.workers.run(job, cancel=self.token)
        self._flights.budget.finished(loop.time() - started - done.queue_s)
        return done

    async def _gone(self) -> None:
        """Return once the client has; the body has been read, so nothing else can arrive."""
        while (await self._request.receive())["type"] != "http.disconnect":
            pass

    def _landed(self, job: asyncio.Task[object]) -> None:
        self._place.leave()
        # Reading the exception also keeps asyncio from logging that nobody did.
        error = None if job.cancelled() else job.exception()
        if isinstance(error, StoppedError):
            self._flights.metrics.cancelled.labels(error.stage).inc()
