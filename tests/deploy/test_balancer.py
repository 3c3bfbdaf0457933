"""The shipped HAProxy in front of real replicas: what is lost, and what is not, when replicas come and go."""

from __future__ import annotations

import base64
import hashlib
import io
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
from PIL import Image

from service.client import Client, Retries
from service.client.options import Transfer
from tests.deploy.conftest import Cluster
from tests.deploy.processes import answers, balancer, free_port, wait_until

CLIENTS = 4
RETRIES = Retries(attempts=20, total_s=60.0, wait_s=0.1, most_wait_s=0.5)


def test_the_three_replicas_share_the_requests(cluster: Cluster, png: bytes):
    load = Load(cluster, png, requests=12)
    before = [replica.requests() for replica in cluster.replicas]
    load.run()
    shares = [r.requests() - b for r, b in zip(cluster.replicas, before, strict=True)]
    assert sum(shares) == 12
    assert min(shares) >= 2, shares


def test_every_replica_gives_the_same_bytes_and_reads_the_others(cluster: Cluster, png: bytes, pixels: np.ndarray):
    answers_of_all = [encode(replica.url, png, quality="100") for replica in cluster.replicas]
    digests = {answer.headers["Content-Digest"] for answer in answers_of_all}
    assert digests == {digest(answers_of_all[0].content)}
    reader = httpx2.post(f"{cluster.replicas[1].url}/decode", content=answers_of_all[0].content, timeout=60)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(reader.content))), pixels)
    lossy = encode(cluster.replicas[0].url, png, quality="60").content
    pictures = [httpx2.post(f"{r.url}/decode", content=lossy, timeout=60).raise_for_status() for r in cluster.replicas]
    assert len({picture.content for picture in pictures}) == 1


def test_a_replica_with_a_failed_golden_check_gets_no_request(cluster: Cluster, png: bytes):
    wait_until(lambda: cluster.broken.metrics()["bijou_golden_check_failures_total[]"] == 1, "the check has failed", 30)
    Load(cluster, png, requests=8).run()
    assert answers(f"{cluster.broken.url}/healthz/ready", 503)
    assert answers(f"{cluster.broken.url}/healthz/live")
    assert f"{cluster.broken.host}:{cluster.broken.port}" not in cluster.balancer.up()
    assert cluster.broken.requests() == 0


def test_kill_9_costs_what_was_in_flight_and_the_client_repeats_it(cluster: Cluster, png: bytes):
    load = Load(cluster, png, requests=60)
    victim = cluster.replicas[0]
    load.run(victim.kill, after=15)
    assert not answers(f"{victim.url}/healthz/live")
    assert len(load.failures) <= CLIENTS, load.failures
    victim.start()
    victim.wait_ready()
    cluster.wait_whole()


def test_a_rolling_restart_loses_nothing(cluster: Cluster, png: bytes):
    statuses: list[int] = []

    def restart_all() -> None:
        for replica in cluster.replicas:
            statuses.append(replica.terminate())
            replica.start()
            replica.wait_ready()
            cluster.wait_whole()

    load = Load(cluster, png, requests=None, pause_s=0.4)
    load.run(restart_all, after=5)
    assert statuses == [0, 0, 0]
    assert load.done > 10
    # A draining replica refuses until the balancer has seen it; nothing else may go wrong.
    assert all("shutting down" in failure for failure in load.failures), load.failures


def test_long_bodies_and_metrics_are_refused_as_problems(cluster: Cluster):
    with socket.create_connection(("127.0.0.1", int(cluster.balancer.url.rpartition(":")[2])), timeout=5) as client:
        client.sendall(b"POST /encode HTTP/1.1\r\nHost: bijou\r\nContent-Length: 33554433\r\n\r\n")
        head = client.recv(4096)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in head
    hidden = httpx2.get(f"{cluster.balancer.url}/metrics")
    assert (hidden.status_code, hidden.headers["content-type"]) == (404, "application/problem+json")
    assert hidden.json()["status"] == 404
    assert answers(f"{cluster.balancer.url}/healthz/balancer")


def test_without_a_replica_the_balancer_answers_with_a_problem(tmp_path: Path):
    nowhere = f"127.0.0.1:{free_port('127.0.0.1')}"
    with balancer(nowhere, 1, tmp_path / "log", BIJOU_LB_CLIENT_MAX="2") as lonely:
        refusal = httpx2.post(f"{lonely.url}/encode", content=b"x", timeout=30)
        assert (refusal.status_code, refusal.headers["Retry-After"]) == (503, "2")
        assert refusal.json()["status"] == 503
        assert answers(f"{lonely.url}/healthz/balancer", 503)
        held = [socket.create_connection(("127.0.0.1", int(lonely.url.rpartition(":")[2]))) for _ in range(2)]
        assert httpx2.get(f"{lonely.url}/info").status_code == 429
        for connection in held:
            connection.close()


def test_requests_wait_at_the_balancer_and_the_surplus_is_refused(cluster: Cluster, png: bytes, tmp_path: Path):
    """One request at a time at each replica and two waiting: of many at once some are refused."""
    limits = {"BIJOU_LB_REPLICA_MAX": "1", "BIJOU_LB_QUEUE_MAX": "2"}
    with balancer(cluster.dns, cluster.replicas[0].port, tmp_path / "log", **limits) as narrow:
        wait_until(lambda: narrow.up() == cluster.addresses(), "all replicas are up", 30)
        with ThreadPoolExecutor(12) as threads:
            replies = list(threads.map(lambda _: encode(narrow.url, png, quality="50"), range(12)))
    refused = [reply for reply in replies if reply.status_code == 503]
    assert {reply.status_code for reply in replies} == {200, 503}
    assert all(reply.headers["Retry-After"] == "5" for reply in refused)


class Load:
    """Clients that encode one picture again and again through the balancer, and check every answer.

    Args:
        cluster: Where.
        png: The picture.
        requests: How many in all; None: until the event is over.
        pause_s: How long a client waits between an answer and its next request.
    """

    def __init__(self, cluster: Cluster, png: bytes, requests: int | None, pause_s: float = 0.0) -> None:
        self._pause_s = pause_s
        self._url, self._png, self._requests = cluster.balancer.url, png, requests
        self._expected = digest(encode(cluster.replicas[1].url, png, quality="50").content)
        self._lock, self._started, self._stop = threading.Lock(), 0, threading.Event()
        self.done = 0
        self.failures: list[str] = []

    def run(self, event: Callable[[], object] = lambda: None, after: int = 0) -> None:
        """Let the event happen after so many answers; return when all clients have ended, each with success."""
        with ThreadPoolExecutor(CLIENTS) as threads:
            clients = [threads.submit(self._client) for _ in range(CLIENTS)]
            try:
                wait_until(lambda: self.done >= after, f"{after} answers", 60)
                event()
            finally:
                if self._requests is None:
                    self._stop.set()
            for client in clients:
                client.result()

    def _client(self) -> None:
        with Client(self._url, retries=RETRIES, timeout_s=30.0) as client:
            while self._next():
                stream = client.encode(self._png, quality=50, progress=self._heard)
                assert digest(stream.data) == self._expected
                with self._lock:
                    self.done += 1
                self._stop.wait(self._pause_s)

    def _next(self) -> bool:
        with self._lock:
            self._started += 1
            return not self._stop.is_set() and (self._requests is None or self._started <= self._requests)

    def _heard(self, step: Transfer) -> None:
        if step.stage == "retry":
            with self._lock:
                self.failures.append(step.reason)


def encode(url: str, png: bytes, **options: str) -> httpx2.Response:
    """One attempt, no retry."""
    return httpx2.post(f"{url}/encode", params=options, content=png, timeout=60)


def digest(data: bytes) -> str:
    """As the header Content-Digest says it (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"
