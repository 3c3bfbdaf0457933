"""SIGTERM while requests are in flight: readiness drops first, nothing in flight is lost, the exit code is 0."""

from __future__ import annotations

import io
import json
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.process import Running, running
from tests.service.wire import Answer, connect, get, post, read_answer, wait_for

CLIENTS = 6


@pytest.fixture(scope="module")
def photo() -> bytes:
    """A picture that takes a while."""
    noise = np.random.default_rng(1).integers(0, 60, (256, 384, 3)) + np.arange(384)[None, :, None] // 3
    file = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_sigterm_under_load(tmp_path: Path, photo: bytes):
    with running(tmp_path, drain_notice_s=1, drain_s=60, request_deadline_s=60) as server:
        answers: list[Answer] = []
        failures: list[BaseException] = []
        lines = [connect(server.port) for _ in range(CLIENTS)]

        def client(index: int) -> None:
            try:
                answers.append(read_answer(lines[index]))
            except BaseException as failure:
                failures.append(failure)
                raise

        for line in lines:
            line.sendall(post("/encode", photo))
        threads = [threading.Thread(target=client, args=(index,)) for index in range(CLIENTS)]
        for thread in threads:
            thread.start()
        in_queue = f'bijou_queue_requests{{op="encode"}} {float(CLIENTS)}'
        wait_for(lambda: in_queue in server.send(get("/metrics")).body.decode(), "all requests to be in flight")

        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: server.send(get("/healthz/ready")).status == 503, "readiness to drop")
        assert server.send(get("/healthz/live")).status == 200
        late = server.send(post("/encode", photo))
        assert (late.status, late.slug, late.headers["connection"]) == (503, "draining", "close")
        assert int(late.headers["retry-after"]) >= 1
        assert server.process.poll() is None

        for thread in threads:
            thread.join()
        assert failures == []
        assert [answer.status for answer in answers] == [200] * CLIENTS
        assert len({answer.body for answer in answers}) == 1
        assert server.process.wait(60) == 0
        for line in lines:
            line.close()
        events = [json.loads(text)["event"] for text in server.log.read_text().splitlines()]
        assert events.index("draining") < events.index("drained")


def test_work_that_outlives_the_drain_is_refused_and_the_process_ends(tmp_path: Path, photo: bytes):
    settings = {"drain_notice_s": 0, "drain_s": 1, "request_deadline_s": 60}
    with running(tmp_path, **settings) as server, connect(server.port) as line:
        line.sendall(post("/encode", photo)[:-1])
        wait_for(lambda: 'op="encode"} 1.0' in server.send(get("/metrics")).body.decode(), "the request")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


def test_an_idle_server_ends_at_once_on_sigint(tmp_path: Path):
    with running(tmp_path, drain_notice_s=30) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 0


def test_the_metrics_port(tmp_path: Path, photo: bytes):
    with running(tmp_path, metrics_port=0) as server:
        log = [json.loads(text) for text in server.log.read_text().splitlines()]
        port = next(line["port"] for line in log if line["event"] == "metrics")
        beside = Running(server.process, port, server.log)
        text = beside.send(get("/metrics")).body.decode()
        assert "bijou_ready 1.0" in text
        assert "bijou_event_loop_lag_seconds" in text
        assert server.send(get("/metrics")).status == 200
