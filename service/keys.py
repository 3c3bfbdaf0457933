"""Authorization header -> allowed or refused, and each key's quota.

Keys are kept and compared as SHA-256 digests, each with every known one and in constant time, so neither the time nor
the number of comparisons tells anything about a key. Several keys at once make rotation possible: add the new one,
move the clients, take the old one out. Source: RFC 6750, "Bearer Token Usage", 2012.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from service.problems import MissingKeyError, QuotaError, WrongKeyError
from service.settings import SettingsError

SHORTEST_KEY = 16
SECONDS_PER_MINUTE = 60.0


class KeyRing:
    """The keys of the service.

    Args:
        given: Keys from the environment.
        file: A file with one key a line; `#` starts a comment.
        requests_per_minute: Quota of each key; 0: none. A whole minute's requests may come at once.
        clock: Seconds, for the quota.

    Raises:
        SettingsError: A key is too short, the file cannot be read, or it has none.
    """

    def __init__(
        self,
        given: str = "",
        file: Path | None = None,
        requests_per_minute: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._given = _digests(given.replace(",", " ").split())
        self._file, self._per_minute, self._clock = file, requests_per_minute, clock
        self._buckets: dict[bytes, tuple[float, float]] = {}
        self._stamp = self._stamp_now()
        self._digests = self._read()

    @property
    def open(self) -> bool:
        """Whether no key is asked for."""
        return self._file is None and not self._given

    def check(self, authorization: str | None) -> bytes | None:
        """Find the key of a request.

        Args:
            authorization: The header's value.

        Returns:
            The key's digest, for `spend`; None if no key is asked for.

        Raises:
            MissingKeyError: The header is missing or not `Bearer <key>`.
            WrongKeyError: The key is not known.
        """
        if self.open:
            return None
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise MissingKeyError("send the header Authorization: Bearer and a key")
        digest = _digest(key.strip())
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            raise WrongKeyError("this key is not known here; ask the operator for one")
        return digest

    def spend(self, digest: bytes | None) -> None:
        """Count one request of a key; QuotaError if its minute is used up."""
        if digest is None or not self._per_minute:
            return
        now, rate = self._clock(), self._per_minute / SECONDS_PER_MINUTE
        left, then = self._buckets.get(digest, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - then) * rate)
        if left < 1:
            raise QuotaError(math.ceil((1 - left) / rate))
        self._buckets[digest] = (left - 1, now)

    def refresh(self) -> None:
        """Read the file again if it changed; a file that has become unusable changes nothing and is logged."""
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        log = structlog.get_logger(__name__)
        try:
            self._digests = self._read()
        except SettingsError as error:
            log.error("the keys stay as they were", reason=str(error))  # noqa: TRY400  one line says it
            return
        self._buckets = {digest: bucket for digest, bucket in self._buckets.items() if digest in self._digests}
        log.info("read the keys again", keys=len(self._digests))

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            status = self._file.stat() if self._file else None
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_size, status.st_ino) if status else None

    def _read(self) -> tuple[bytes, ...]:
        if self._file is None:
            return self._given
        try:
            lines = self._file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"the file of API keys cannot be read: {type(error).__name__}") from None
        keys = [line.partition("#")[0].strip() for line in lines]
        found = (*self._given, *_digests(key for key in keys if key))
        if not found:
            raise SettingsError("the file of API keys has none; without BIJOU_API_KEYS_FILE no key is asked for")
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _digests(keys: Iterable[str]) -> tuple[bytes, ...]:
    keys = tuple(keys)
    if any(len(key) < SHORTEST_KEY for key in keys):
        raise SettingsError(f"an API key is shorter than {SHORTEST_KEY} characters; make one with openssl rand -hex 32")
    return tuple(_digest(key) for key in keys)
