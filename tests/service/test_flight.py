"""Deadlines, lost clients and the pixel budget, on a real server: who is answered, what stops, what is given back."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from service import codec, operations
from service.cancellation import Cancellation
from tests.service.wire import Live, get, listen, post, read_answer, wait_for

PIXELS = 45 * 61


class Gate:
    """Encodings wait here, looking at their token as the codec does between two steps."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.started = threading.Semaphore(0)

    def wait(self, cancel: Cancellation) -> None:
        self.started.release()
        while not self.opened.wait(0.005):
            cancel.check("step")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate, encode = Gate(), operations.encode

    def waiting(data: bytes, options: object, tools: object, cancel: Cancellation) -> operations.Result:
        gate.wait(cancel)
        return encode(data, options, tools, cancel=cancel)  # type: ignore[arg-type]

    monkeypatch.setattr(operations, "encode", waiting)
    yield gate
    gate.opened.set()


def cancelled(live: Live, stage: str) -> bool:
    return f'bijou_cancelled_total{{stage="{stage}"}} 1.0' in live.service.metrics.text().decode()


def test_a_lost_client_stops_its_work(models: codec.ModelSet, gate: Gate, png: bytes):
    with listen(models) as live:
        with live.connect() as line:
            line.sendall(post("/encode", png))
            assert gate.started.acquire(timeout=30)
            assert live.service.flights.budget.taken == 1
        wait_for(lambda: live.service.flights.budget.taken == 0, "the place of a lost client")
        wait_for(lambda: cancelled(live, "step"), "the count")
        assert 'code="499"' in live.service.metrics.text().decode()


def test_a_client_lost_while_waiting_for_a_thread_never_gets_one(models: codec.ModelSet, gate: Gate, png: bytes):
    with listen(models, codec_workers=1) as live, live.connect() as first:
        first.sendall(post("/encode", png))
        assert gate.started.acquire(timeout=30)
        with live.connect() as second:
            second.sendall(post("/encode", png))
            wait_for(lambda: live.service.flights.budget.pixels_of("encode") == 2 * PIXELS, "the second request")
        wait_for(lambda: live.service.flights.budget.taken == 1, "the place of the one that waited")
        wait_for(lambda: cancelled(live, "pool"), "the count")
        gate.opened.set()
        assert read_answer(first).status == 200
        assert not gate.started.acquire(blocking=False)


def test_a_client_lost_within_its_body_gives_its_place_back(models: codec.ModelSet, png: bytes):
    with listen(models) as live:
        with live.connect() as line:
            line.sendall(post("/encode", png)[:-1])
            wait_for(lambda: live.service.flights.budget.taken == 1, "the request")
        wait_for(lambda: live.service.flights.budget.taken == 0, "its place")
        assert cancelled(live, "body")


def test_the_deadline_answers_and_stops_the_work(models: codec.ModelSet, gate: Gate, png: bytes):
    with listen(models, request_deadline_s=0.3) as live:
        late = live.send(post("/encode", png))
        assert (late.status, late.slug) == (504, "deadline")
        wait_for(lambda: live.service.flights.budget.taken == 0, "the place of a late request")
        assert cancelled(live, "step")
        assert 'bijou_rejected_total{reason="deadline"} 1.0' in live.service.metrics.text().decode()


def test_a_slow_body_meets_the_deadline(models: codec.ModelSet, png: bytes):
    with listen(models, request_deadline_s=0.3) as live, live.connect() as line:
        line.sendall(post("/encode", png)[:-1])
        late = read_answer(line)
        assert (late.status, late.slug, late.headers["connection"]) == (504, "deadline", "close")
        assert live.service.flights.budget.taken == 0


def test_pixels_are_reserved_by_header_before_any_decoding(models: codec.ModelSet, gate: Gate, png: bytes):
    with listen(models, max_pixels=5_000, max_queue_pixels=5_000) as live, live.connect() as first:
        first.sendall(post("/encode", png))
        assert gate.started.acquire(timeout=30)
        assert f'bijou_queue_pixels{{op="encode"}} {float(PIXELS)}' in live.send(get("/metrics")).body.decode()
        full = live.send(post("/encode", png))
        assert (full.status, full.slug) == (503, "queue-full")
        assert "pixels" in full.problem["detail"]
        assert int(full.headers["retry-after"]) >= 1
        head = live.send(post("/inspect", b"\x8bBIJ\r\n\x1a\n"))
        assert head.slug == "corrupt-stream", "what is not decoded needs no pixels"
        gate.opened.set()
        assert read_answer(first).status == 200
        assert live.send(post("/encode", png)).status == 200
        assert 'bijou_rejected_total{reason="queue_pixels"} 1.0' in live.service.metrics.text().decode()


def test_pixels_of_streams_are_reserved_too(models: codec.ModelSet, gate: Gate, png: bytes):
    gate.opened.set()
    with listen(models) as live:
        stream = live.send(post("/encode", png)).body
    assert gate.started.acquire(blocking=False)
    gate.opened.clear()
    with listen(models, max_pixels=5_000, max_queue_pixels=5_000) as live, live.connect() as first:
        first.sendall(post("/encode", png))
        assert gate.started.acquire(timeout=30)
        for path in ("/decode", "/re-encode"):
            assert live.send(post(path, stream)).slug == "queue-full"
