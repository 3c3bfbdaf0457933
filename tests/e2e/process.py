"""The server as its users start it: a process of its own, configured by its environment."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.live_server import ROOT, environment, free_port
from tests.service.wire import PATIENCE_S, Answer, get, send


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
    given = environment(**{"port": port, "log_format": "json", **settings})
    with log.open("wb") as sink:
        process = subprocess.Popen([sys.executable, "-m", "service", "serve"], cwd=ROOT, env=given, stderr=sink)
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
