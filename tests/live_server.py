"""A server in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(**settings: object) -> dict[str, str]:
    """The environment of a server or command: one thread, no settings of the caller's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BIJOU_")}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    asked = {f"BIJOU_{name}".upper(): str(value) for name, value in settings.items()}
    return {**inherited, "PYTHONPATH": path, "BIJOU_DEVICE": "cpu", "BIJOU_DEVICE_THREADS": "1", **asked}


@contextmanager
def live_server(port: int = 0, **settings: object) -> Iterator[str]:
    """Serve until the block ends; yields the URL once the server is ready."""
    port = port or free_port()
    command = [sys.executable, "-m", "service", "serve", "--port", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, env=environment(log_level="warning", **settings))
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while not _ready(url):
            assert server.poll() is None, "the server has stopped"
            assert time.monotonic() < deadline, "the server does not become ready"
            time.sleep(0.05)
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(timeout=40)
        finally:
            server.kill()


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz/ready", timeout=5):
            return True
    except (urllib.error.HTTPError, OSError):
        return False
