"""The two faces: `Client` blocks, `AsyncClient` is awaited. Methods and arguments are the same."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx2

from service import __version__
from service.client import calls
from service.client.calls import Call
from service.client.errors import OverloadedError, UnreachableError
from service.client.exchange import perform
from service.client.links import AsyncLink, BlockingLink, finish
from service.client.options import DecodeOptions, EncodeOptions, Progress, ReEncodeOptions, Retries
from service.client.results import Image, Stream, StreamInfo
from service.client.sources import Source

T = TypeVar("T")
READY = "healthz/ready"


def _settings(url: str, api_key: str | None, timeout_s: float, connections: int) -> dict[str, Any]:
    if not url.startswith(("http://", "https://")):
        raise ValueError("the URL has to start with http:// or https://")
    headers = {"User-Agent": f"bijou/{__version__}"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    return {
        "base_url": url,
        "headers": headers,
        # Waiting for a free connection of one's own pool is no fault of the service's.
        "timeout": httpx2.Timeout(timeout_s, pool=None),
        "limits": httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
    }


class Client:
    """A blocking client; one for many threads, so that they share connections.

    Args:
        url: Where the service is.
        api_key: Sent as a bearer token.
        timeout_s: Longest silence of the service, 60 s by default: its own deadline is 30.
        retries: How often and how long to try.
        connections: Most connections at once.

    Raises:
        ValueError: The URL is not one of HTTP.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        retries: Retries = Retries(),
        connections: int = 16,
    ) -> None:
        self._link = BlockingLink(httpx2.Client(**_settings(url, api_key, timeout_s, connections)))
        self._retries = retries

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        finish(self._link.close())

    def encode(
        self,
        source: Source,
        *,
        to: Path | None = None,
        progress: Progress | None = None,
        **options: Unpack[EncodeOptions],
    ) -> Stream:
        """Image -> stream; `to` writes it to a file, which appears once it is whole and checked."""
        return self._make(calls.to_stream("encode", source, to, options), progress)

    def re_encode(
        self,
        source: Source,
        *,
        to: Path | None = None,
        progress: Progress | None = None,
        **options: Unpack[ReEncodeOptions],
    ) -> Stream:
        """Stream or image -> stream at another quality."""
        return self._make(calls.to_stream("re-encode", source, to, options), progress)

    def decode(
        self,
        source: Source,
        *,
        to: Path | None = None,
        progress: Progress | None = None,
        **options: Unpack[DecodeOptions],
    ) -> Image:
        """Stream -> image file, PNG by default."""
        return self._make(calls.to_image(source, to, {"format": "png", **options}), progress)

    def inspect(self, source: Source) -> StreamInfo:
        """Stream, or its first part -> what it holds."""
        return self._make(calls.to_info(source))

    def models(self) -> Any:
        """The models served, as JSON."""
        return self._make(calls.to_json("models"))

    def info(self) -> Any:
        """Versions, device, limits and models, as JSON."""
        return self._make(calls.to_json("info"))

    def ready(self) -> bool:
        """Whether the service answers and takes work; asked once."""
        try:
            finish(perform(self._link, calls.to_json(READY), Retries(attempts=1), None))
        except (OverloadedError, UnreachableError):
            return False
        return True

    def _make(self, call: Call[T], progress: Progress | None = None) -> T:
        return finish(perform(self._link, call, self._retries, progress))


class AsyncClient:
    """The same client for an event loop; see `Client` for its arguments."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        retries: Retries = Retries(),
        connections: int = 16,
    ) -> None:
        self._link = AsyncLink(httpx2.AsyncClient(**_settings(url, api_key, timeout_s, connections)))
        self._retries = retries

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._link.close()

    async def encode(
        self,
        source: Source,
        *,
        to: Path | None = None,
        progress: Progress | None = None,
        **options: Unpack[EncodeOptions],
    ) -> Stream:
        """Image -> stream; `to` writes it to a file, which appears once it is whole and checked."""
        return await self._make(calls.to_stream("encode", source, to, options), progress)

    async def re_encode(
        self,
        source: Source,
        *,
        to: Path | None = None,
        progress: Progress | None = None,
        **options: Unpack[ReEncodeOptions],
    ) -> Stream:
        """Stream or image -> stream at another quality."""
        return await self._make(calls.to_stream("re-encode", source, to, options), progress)

    async def decode(
        self,
        source: Source,
        *,
        to: Path | None = None,
        progress: Progress | None = None,
        **options: Unpack[DecodeOptions],
    ) -> Image:
        """Stream -> image file, PNG by default."""
        return await self._make(calls.to_image(source, to, {"format": "png", **options}), progress)

    async def inspect(self, source: Source) -> StreamInfo:
        """Stream, or its first part -> what it holds."""
        return await self._make(calls.to_info(source))

    async def models(self) -> Any:
        """The models served, as JSON."""
        return await self._make(calls.to_json("models"))

    async def info(self) -> Any:
        """Versions, device, limits and models, as JSON."""
        return await self._make(calls.to_json("info"))

    async def ready(self) -> bool:
        """Whether the service answers and takes work; asked once."""
        try:
            await perform(self._link, calls.to_json(READY), Retries(attempts=1), None)
        except (OverloadedError, UnreachableError):
            return False
        return True

    async def _make(self, call: Call[T], progress: Progress | None = None) -> T:
        return await perform(self._link, call, self._retries, progress)
