"""One call -> its result: attempts, waits, checks. The same for both clients, over their links.

Every POST may be sent again: the service gives the same bytes for the same request, and keeps nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

import httpx2
import tenacity

from service.atomic import whole_file
from service.client.calls import Answer, Call, check_digest
from service.client.errors import (
    PROBLEM_BYTES,
    ClientError,
    ForeignAnswerError,
    IntegrityError,
    OverloadedError,
    ProblemError,
    UnreachableError,
    problem,
)
from service.client.links import Link, Outgoing, Reply
from service.client.options import Progress, Retries, Transfer
from service.client.sources import Body

T = TypeVar("T")
MEDIA_TYPE = "application/octet-stream"


async def perform(link: Link, call: Call[T], retries: Retries, progress: Progress | None) -> T:
    """Make a call, again and again if need be.

    Raises:
        ProblemError: The service refused, or had no room at the last attempt.
        UnreachableError: No connection held at the last attempt.
        IntegrityError: The answer was damaged at the last attempt.
        ForeignAnswerError: The answer is not one of this service.
        OSError: A file could not be read or written.
    """
    heard: Progress = progress or (lambda transfer: None)
    retrying = tenacity.AsyncRetrying(
        sleep=link.sleep,
        retry=tenacity.retry_if_exception_type((OverloadedError, UnreachableError, IntegrityError)),
        stop=tenacity.stop_after_attempt(retries.attempts) | tenacity.stop_before_delay(retries.total_s),
        wait=_Wait(retries),
        before_sleep=partial(_report, heard),
        reraise=True,
    )
    async for attempt in retrying:
        with attempt:
            return await _attempt(link, call, heard, attempt.retry_state.attempt_number)
    raise AssertionError("tenacity returns or raises")


class _Wait(tenacity.wait.wait_base):
    """What the service asked for, plus a growing random part, so that clients do not come back all at once."""

    def __init__(self, retries: Retries) -> None:
        self._backoff = tenacity.wait_random_exponential(retries.wait_s, retries.most_wait_s)

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        asked_s = error.retry_after_s if isinstance(error, ProblemError) else None
        return (asked_s or 0.0) + self._backoff(retry_state)


def _report(heard: Progress, state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    heard(Transfer("retry", state.attempt_number, wait_s=state.upcoming_sleep, reason=str(error)))


async def _attempt(link: Link, call: Call[T], heard: Progress, attempt: int) -> T:
    headers = {"Accept-Encoding": "identity"}
    chunks = None
    if call.body is not None:
        headers |= {"Content-Type": MEDIA_TYPE, "Content-Length": str(call.body.total_bytes)}
        chunks = _sent(call.body, heard, attempt)
    try:
        reply = await link.send(Outgoing(call.method, call.route, call.query, headers, chunks))
        try:
            answer = await _received(link, call, reply, heard, attempt)
        finally:
            await reply.close()
    except httpx2.LocalProtocolError:
        raise ClientError("the file changed while it was sent; send it again") from None
    except httpx2.TransportError as error:
        raise UnreachableError(f"no answer from the service: {error or type(error).__name__}") from error
    try:
        return call.read(answer)
    except (KeyError, TypeError, ValueError):
        raise ForeignAnswerError("the answer lacks what was asked for") from None


def _sent(body: Body, heard: Progress, attempt: int) -> Iterator[bytes]:
    done = 0
    for chunk in body.chunks():
        yield chunk
        done += len(chunk)
        heard(Transfer("send", attempt, done, body.total_bytes))


async def _received(link: Link, call: Call[T], reply: Reply, heard: Progress, attempt: int) -> Answer:
    """Read a reply; raise the problem it is, or its damage, before anything appears under the target's name."""
    if reply.status != 200:
        raise problem(reply.status, reply.headers, await _head(reply))
    length = reply.headers.get("content-length", "")
    total = int(length) if length.isdecimal() else None
    digest, done = hashlib.sha256(), 0
    with _sink(call.target) as sink:
        while (chunk := await reply.read()) is not None:
            digest.update(chunk)
            await link.run(partial(sink.write, chunk))
            done += len(chunk)
            heard(Transfer("receive", attempt, done, total))
        check_digest(reply.headers, digest.digest(), call.checked)
        body = sink.getvalue() if isinstance(sink, io.BytesIO) else None
    return Answer(reply.headers, body, call.target, digest.hexdigest())


async def _head(reply: Reply) -> bytes:
    body = b""
    while len(body) < PROBLEM_BYTES and (chunk := await reply.read()) is not None:
        body += chunk
    return body


def _sink(target: Path | None) -> contextlib.AbstractContextManager[IO[bytes]]:
    return contextlib.nullcontext(io.BytesIO()) if target is None else whole_file(target)
