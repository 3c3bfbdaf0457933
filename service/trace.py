"""traceparent header <-> trace of one request, which is also its request id.

A caller's trace is continued under a span of our own; anything that is not a valid version 00 header starts a new one.
Source: W3C Trace Context, level 1, 2021.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
INVALID_VERSION = "ff"


@dataclass(frozen=True)
class Trace:
    """Where a request stands in its trace.

    Attributes:
        trace_id: 32 hex digits, the same in every service the request passes.
        span_id: 16 hex digits, this service's own.
        parent_id: The caller's span; None if the trace starts here.
    """

    trace_id: str
    span_id: str
    parent_id: str | None


def trace_of(traceparent: str | None) -> Trace:
    """Continue the caller's trace, or start one."""
    found = HEADER.fullmatch((traceparent or "").strip())
    own = secrets.token_hex(8)
    if found is None:
        return Trace(secrets.token_hex(16), own, None)
    version, trace_id, parent_id, _, more = found.groups()
    if version == INVALID_VERSION or (version == "00" and more) or not int(trace_id, 16) or not int(parent_id, 16):
        return Trace(secrets.token_hex(16), own, None)
    return Trace(trace_id, own, parent_id)
