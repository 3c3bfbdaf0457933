"""Real processes on loopback: replicas of the service, and the shipped HAProxy configuration in front of them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
HAPROXY_CONFIGURATION = ROOT / "docker/haproxy/haproxy.cfg"
START_S = 120.0
"""Longest start of a replica: imports, graphs, golden check, on a busy core."""


def program(name: str, package: str) -> str:
    """Path of a program; the test is skipped where it is not installed."""
    beside = Path(sys.executable).parent
    path = shutil.which(name) or shutil.which(name, path=f"{beside}:/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed (package {package})")
    return path


def wait_until(condition: Callable[[], bool], what: str, within_s: float) -> None:
    """Return once the condition holds; fail if it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.05)


def free_port(*addresses: str) -> int:
    """A port that is free at every one of the addresses."""
    for _ in range(50):
        with socket.socket() as first:
            first.bind((addresses[0], 0))
            port = int(first.getsockname()[1])
            if all(_is_free(address, port) for address in addresses[1:]):
                return port
    raise AssertionError("no port is free at all addresses")


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex((address, port)) != 0


def answers(url: str, status: int = 200) -> bool:
    """Whether a GET is answered with the status."""
    try:
        return httpx2.get(url, timeout=5).status_code == status
    except httpx2.TransportError:
        return False


@dataclass
class Replica:
    """One process of the service.

    Attributes:
        host: Its own loopback address.
        port: The same for all replicas.
        log: Where its output goes.
        settings: More BIJOU_ variables.
    """

    host: str
    port: int
    log: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Start the process and return at once."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BIJOU_")}
        environment |= {"BIJOU_HOST": self.host, "BIJOU_PORT": str(self.port)}
        environment |= {"BIJOU_DEVICE": "cpu", "BIJOU_DEVICE_THREADS": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service", "serve"],
                cwd=ROOT,
                env=environment | dict(self.settings),
                stdout=log,
                stderr=log,
            )

    def wait_ready(self) -> None:
        """Return once it says that it is ready."""
        self._wait(lambda: answers(f"{self.url}/healthz/ready"), "ready")

    def wait_alive(self) -> None:
        """Return once it answers, ready or not."""
        self._wait(lambda: answers(f"{self.url}/healthz/live"), "alive")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        def over() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.url} ended:\n{self.log.read_text()}"
            return condition()

        wait_until(over, f"{self.url} {what}", START_S)

    def terminate(self) -> int:
        """SIGTERM, as an orchestrator stops a container; its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(45)

    def kill(self) -> None:
        """SIGKILL; nothing in flight is answered."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    def metrics(self) -> dict[str, float]:
        """Metric name with labels, as Prometheus reads it -> value."""
        families = text_string_to_metric_families(httpx2.get(f"{self.url}/metrics", timeout=10).text)
        samples = [sample for family in families for sample in family.samples]
        return {s.name + str(sorted(s.labels.items())): s.value for s in samples}

    def requests(self, route: str = "/encode") -> float:
        """Requests it has answered on a route, whatever the answer."""
        wanted = f"('route', '{route}')"
        return sum(v for k, v in self.metrics().items() if k.startswith("bijou_http_requests_total") and wanted in k)


@dataclass(frozen=True)
class Balancer:
    """A running HAProxy.

    Attributes:
        url: Where clients connect.
        statistics: Where its own metrics are.
    """

    url: str
    statistics: str

    def up(self) -> set[str]:
        """Addresses of the replicas it sends requests to."""
        table = httpx2.get(f"{self.statistics}/;csv", timeout=5).text.splitlines()
        columns = table[0].removeprefix("# ").split(",")
        rows = [dict(zip(columns, line.split(","), strict=False)) for line in table[1:]]
        servers = [row for row in rows if row["pxname"] == "bijou" and row["svname"].startswith("replica")]
        return {server["addr"] for server in servers if server["status"].startswith("UP")}


@contextmanager
def balancer(dns: str, port: int, log: Path, **settings: str) -> Iterator[Balancer]:
    """Run the shipped configuration; only addresses, and what a test asks for, come from the environment."""
    haproxy = program("haproxy", "haproxy")
    public = free_port("127.0.0.1")
    statistics = free_port("127.0.0.1")
    addresses = {
        "BIJOU_LB_BIND": f"127.0.0.1:{public}",
        "BIJOU_LB_STATS_BIND": f"127.0.0.1:{statistics}",
        "BIJOU_LB_DNS": dns,
        "BIJOU_LB_PORT": str(port),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [haproxy, "-dW", "-db", "-f", str(HAPROXY_CONFIGURATION)],
            env={**os.environ, **addresses, **settings},
            stdout=output,
            stderr=output,
        )
    try:
        running = Balancer(f"http://127.0.0.1:{public}", f"http://127.0.0.1:{statistics}")
        wait_until(lambda: answers(f"{running.statistics}/metrics"), f"HAProxy runs:\n{log.read_text()}", 10)
        yield running
    finally:
        process.kill()
        process.wait(10)
