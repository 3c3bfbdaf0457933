"""The server as its users start it: a process of its own, configured by its environment."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import service
from tests.service.wire import PATIENCE_S, Answer, get, send

REPOSITORY = Path(service.__file__).parents[1]


@dataclass(frozen=True)
class Running:
    """A server process.

    Attributes:
        process: Its process.
        port: Where it listens on 127.0.0.1.
        log: What it says on stderr.
    """

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def send(self, *parts: bytes) -> Answer:
        """Send bytes on a fresh connection and read the answer."""
        return send(self.port, *parts)

    def ready(self) -> bool:
        """Whether it takes work."""
        try:
            return self.send(get("/healthz/ready")).status == 200
        except OSError:
            return False

    def peak_bytes(self) -> int:
        """The most memory the process has ever held."""
        return self._memory("VmHWM")

    def resident_bytes(self) -> int:
        """The memory the process holds."""
        return self._memory("VmRSS")

    def _memory(self, name: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@contextmanager
def running(folder: Path, **settings: object) -> Iterator[Running]:
    """A ready server with these settings, `running(folder, drain_s=5)`; its log goes to the folder."""
    log, port = folder / "server.log", free_port()
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith("BIJOU_")}
    given = {"device": "cpu", "device_threads": 1, "port": port, "log_format": "json", **settings}
    environment = clean | {f"BIJOU_{name.upper()}": str(value) for name, value in given.items()}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve"], cwd=REPOSITORY, env=environment, stderr=sink
        )
    server = Running(process, port, log)
    try:
        end = time.monotonic() + PATIENCE_S
        while not server.ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield server
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
