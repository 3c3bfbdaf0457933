"""The real application with the real models, ready, behind a test client."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from fastapi.testclient import TestClient

from service import codec
from service.app import create_app
from service.health import State
from service.settings import Settings

Serving = Callable[..., AbstractContextManager[TestClient]]


def wait_while_starting(client: TestClient) -> None:
    """Return once the golden check is over, whatever it said."""
    deadline = time.monotonic() + 60
    while client.app.state.service.health.state is State.STARTING:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline, "the golden check takes too long"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def serving(models: codec.ModelSet) -> Serving:
    """Serve with other settings: `with serving(max_pixels=10) as client`."""

    @contextmanager
    def start(**settings: object) -> Iterator[TestClient]:
        app = create_app(Settings.model_validate({"device": "cpu", **settings}), models)
        with TestClient(app, raise_server_exceptions=False) as client:
            wait_while_starting(client)
            yield client

    return start


@pytest.fixture(scope="session")
def client(serving: Serving) -> Iterator[TestClient]:
    """A client of the application with default settings."""
    with serving() as ready:
        yield ready


@pytest.fixture(scope="session")
def stream(client: TestClient, png: bytes) -> bytes:
    """The picture, encoded at the default quality."""
    answer = client.post("/encode", content=png)
    assert answer.status_code == 200, answer.text
    return answer.content


@pytest.fixture
def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
