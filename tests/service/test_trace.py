"""traceparent in, request id out, and in every log line between."""

from __future__ import annotations

import re

import pytest
import structlog
from fastapi.testclient import TestClient

from service.trace import trace_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_a_callers_trace_is_continued_under_our_own_span():
    trace = trace_of(GOOD)
    assert (trace.trace_id, trace.parent_id) == (TRACE, SPAN)
    assert re.fullmatch("[0-9a-f]{16}", trace.span_id)
    assert trace.span_id != SPAN
    assert trace_of(f"01-{TRACE}-{SPAN}-01-more").trace_id == TRACE


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "xyzzy",
        GOOD.upper(),
        GOOD + "-more",
        GOOD[:-1],
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
    ],
)
def test_anything_else_starts_a_new_one(header: str | None):
    trace = trace_of(header)
    assert re.fullmatch("[0-9a-f]{32}", trace.trace_id)
    assert trace.trace_id != TRACE
    assert trace.parent_id is None


def test_the_request_id_is_in_the_answer_and_in_the_log(client: TestClient):
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        answer = client.get("/models", headers={"traceparent": GOOD})
        other = client.get("/no/such/route")
    assert answer.headers["x-request-id"] == TRACE
    assert re.fullmatch("[0-9a-f]{32}", other.headers["x-request-id"])
    lines = [line for line in logs if line["event"] == "request"]
    assert [line["trace_id"] for line in lines] == [TRACE, other.headers["x-request-id"]]
    assert [line.get("parent_id") for line in lines] == [SPAN, None]
