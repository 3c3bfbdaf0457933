"""HTTP at its barest, so that the generator takes little of the machine it measures: one request a connection."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Sample:
    """How one request went.

    Attributes:
        status: Of the answer; 0 if there was none.
        seconds: From connecting to the last byte.
        retry_after: Whether the answer says when to come again.
        cost_s: What the library needs for the same work; 0 for a probe.
    """

    status: int
    seconds: float
    retry_after: bool
    cost_s: float


@dataclass(frozen=True)
class Target:
    """A server on this machine."""

    host: str
    port: int


def target_of(url: str) -> Target:
    """The server behind a URL; ValueError if it is not on this machine's loopback."""
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
    if parts.scheme != "http" or not ipaddress.ip_address(host).is_loopback:
        raise ValueError("the load generator only ever calls this machine's loopback, http://127.0.0.1:<port>")
    return Target(host, parts.port or 80)


async def fetch(target: Target, method: str, path: str, body: bytes, timeout_s: float, cost_s: float) -> Sample:
    """Make one request and read its answer to the end; whatever goes wrong is status 0."""
    started = time.perf_counter()
    try:
        async with asyncio.timeout(timeout_s):
            status, head = await _exchange(target, method, path, body)
    except (OSError, TimeoutError, ValueError, IndexError, asyncio.IncompleteReadError):
        status, head = 0, b""
    return Sample(status, time.perf_counter() - started, b"\r\nretry-after:" in head.lower(), cost_s)


async def _exchange(target: Target, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(target.host, target.port)
    try:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        answer = await reader.readuntil(b"\r\n\r\n")
        rest = await reader.read()
    finally:
        writer.close()
    length = next(int(line[15:]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    if len(rest) != length:
        raise ValueError("the answer is cut short")
    return int(answer.split()[1]), answer
