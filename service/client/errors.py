"""What can go wrong for a client, as one tree.

ClientError
|-- UnreachableError          no connection, or it broke, after the last attempt
|-- IntegrityError            the answer was damaged on its way, after the last attempt
|-- ForeignAnswerError        the answer is not one of a Bijou service; never tried again
`-- ProblemError              the service, or a proxy before it, answered with an error
    |-- RefusedError          4xx: sending the same again would be refused again
    |-- OverloadedError       429, 502, 503, 504 after the last attempt
    `-- ServerFaultError      any other status that is not a success
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
PROBLEM_BYTES = 2**20
"""Longest error document that is read."""


class ClientError(Exception):
    """Root of the tree; its text is one sentence that says what to do."""


class UnreachableError(ClientError):
    """There is no connection, or it broke."""


class IntegrityError(ClientError):
    """The answer does not have the digest it came with."""


class ForeignAnswerError(ClientError):
    """The answer is a success, but not one of this service: most likely the URL is wrong."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; check that the URL is that of a Bijou service")


class ProblemError(ClientError):
    """The service answered with an error (RFC 9457).

    Attributes:
        status: HTTP status.
        slug: Last part of the problem's type, for example `queue-full`; empty if the answer was no problem document.
        title: The same for every problem of this type.
        detail: What to do.
        members: The document's other members.
        retry_after_s: When to try again, if the answer said.
    """

    def __init__(
        self, status: int, slug: str, title: str, detail: str, members: Mapping[str, Any], retry_after_s: float | None
    ) -> None:
        super().__init__(f"{title}: {detail}" if detail else title)
        self.status, self.slug, self.title, self.detail = status, slug, title, detail
        self.members, self.retry_after_s = members, retry_after_s


class RefusedError(ProblemError):
    """The request has to be changed before it is sent again."""


class OverloadedError(ProblemError):
    """The service had no room for the request."""


class ServerFaultError(ProblemError):
    """Something failed in the service."""


def problem(status: int, headers: Mapping[str, str], body: bytes) -> ProblemError:
    """The error for an answer that is no success, whether or not it is a problem document."""
    try:
        document = json.loads(body) if "json" in headers.get("content-type", "") else {}
    except ValueError:
        document = {}
    document = document if isinstance(document, dict) else {}
    known = {"type", "title", "status", "detail"}
    phrase = next((s.phrase for s in HTTPStatus if s == status), "")
    kind: type[ProblemError] = ServerFaultError
    if status in RETRIED_STATUSES:
        kind = OverloadedError
    elif 400 <= status < 500:
        kind = RefusedError
    return kind(
        status,
        str(document.get("type", "")).rpartition(":")[2],
        str(document.get("title", f"HTTP {status} {phrase}".strip())),
        str(document.get("detail", "")),
        {name: value for name, value in document.items() if name not in known},
        retry_after_s(headers.get("retry-after")),
    )


def retry_after_s(value: str | None) -> float | None:
    """Retry-After in seconds from now, from either of its forms; None if absent or malformed (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())
