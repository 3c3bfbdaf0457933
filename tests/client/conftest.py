"""A real server, a faulty network before it, and both clients behind one face."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from service.client import AsyncClient, Client, Retries
from tests.client.faults import Proxy, faulty
from tests.live_server import live_server

QUICK = Retries(attempts=6, total_s=20, wait_s=0.01, most_wait_s=0.05)

Ask = Callable[..., Any]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """URL of a server with the default settings."""
    with live_server() as url:
        yield url


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    """A faulty network before it."""
    with faulty(server) as state:
        yield state


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """`ask(url, "encode", source, ...)` by either client; `settings` are the client's."""

    def blocking(url: str, method: str, *arguments: Any, settings: dict[str, Any] | None = None, **options: Any) -> Any:
        with Client(url, **{"retries": QUICK, **(settings or {})}) as client:
            return getattr(client, method)(*arguments, **options)

    def awaited(url: str, method: str, *arguments: Any, settings: dict[str, Any] | None = None, **options: Any) -> Any:
        async def run() -> Any:
            async with AsyncClient(url, **{"retries": QUICK, **(settings or {})}) as client:
                return await getattr(client, method)(*arguments, **options)

        return anyio.run(run)

    return blocking if request.param == "sync" else awaited
