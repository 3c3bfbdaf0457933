"""One request -> one reply, blocking or not: the only place where the two clients differ.

`Link` is written as coroutines. Those of `BlockingLink` never wait for an event loop, so that `finish` can run
whatever is built on them without one.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import anyio
import httpx2

T = TypeVar("T")


@dataclass(frozen=True)
class Outgoing:
    """A request: `chunks` is None if it has no body."""

    method: str
    route: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    chunks: Iterator[bytes] | None


class Reply(Protocol):
    """A reply whose body has not been read yet."""

    status: int
    headers: Mapping[str, str]

    async def read(self) -> bytes | None:
        """The next bytes, None at the end."""

    async def close(self) -> None:
        """Give the connection back."""


class Link(Protocol):
    """A pool of connections to one service."""

    async def send(self, request: Outgoing) -> Reply:
        """Send a request and wait for the head of its reply."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    async def run(self, work: Callable[[], T]) -> T:
        """Do work that may block, on files for example."""

    async def close(self) -> None:
        """Close every connection."""


class BlockingReply:
    """A reply that is read by blocking."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response, self._chunks = response, response.iter_raw()
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes | None:
        """The next bytes, None at the end."""
        return next(self._chunks, None)

    async def close(self) -> None:
        """Give the connection back."""
        self._response.close()


class BlockingLink:
    """Connections of a blocking client."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    async def send(self, request: Outgoing) -> Reply:
        """Send a request and wait for the head of its reply."""
        return BlockingReply(self._client.send(_build(self._client, request, request.chunks), stream=True))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)  # noqa: ASYNC251  no event loop runs this coroutine

    async def run(self, work: Callable[[], T]) -> T:
        """Do work that may block."""
        return work()

    async def close(self) -> None:
        """Close every connection."""
        self._client.close()


class AsyncReply:
    """A reply that is read under an event loop."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response, self._chunks = response, response.aiter_raw()
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes | None:
        """The next bytes, None at the end."""
        return await anext(self._chunks, None)

    async def close(self) -> None:
        """Give the connection back."""
        await self._response.aclose()


class AsyncLink:
    """Connections of an async client."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def send(self, request: Outgoing) -> Reply:
        """Send a request and wait for the head of its reply."""
        chunks = None if request.chunks is None else self._in_threads(request.chunks)
        return AsyncReply(await self._client.send(_build(self._client, request, chunks), stream=True))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)

    async def run(self, work: Callable[[], T]) -> T:
        """Do work that may block in a thread."""
        return await anyio.to_thread.run_sync(work)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _in_threads(self, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
        while (chunk := await self.run(lambda: next(chunks, None))) is not None:
            yield chunk


def _build(
    client: httpx2.Client | httpx2.AsyncClient,
    request: Outgoing,
    content: Iterator[bytes] | AsyncIterator[bytes] | None,
) -> httpx2.Request:
    return client.build_request(
        request.method, request.route, params=request.query, headers=request.headers, content=content
    )


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that is built on blocking links alone."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise AssertionError("a blocking coroutine waited for an event loop")
