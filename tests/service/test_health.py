"""The states of a replica, and who may work in each."""

from __future__ import annotations

import pytest

from service.health import Health, State
from tests.service.conftest import Serving
from tests.service.test_problems import assert_problem


def test_a_passed_check_makes_it_ready_and_a_drain_is_for_good():
    health = Health()
    assert (health.state, health.started) == (State.STARTING, False)
    health.checked(passed=True)
    assert (health.state, health.started) == (State.READY, True)
    health.drain()
    health.checked(passed=True)
    assert (health.state, health.started) == (State.DRAINING, True)


def test_a_failed_check_is_for_good():
    health = Health()
    health.checked(passed=False)
    health.checked(passed=True)
    assert (health.state, health.started) == (State.FAILED, False)


def test_a_failing_device_is_followed_both_ways():
    failures: list[str] = ["stuck"]
    health = Health()
    health.follow(lambda: next(iter(failures), None))
    states = [health.state]
    health.checked(passed=True)
    states.append(health.state)
    assert health.started
    failures.clear()
    states.append(health.state)
    assert states == [State.STARTING, State.FAILED, State.READY]


def test_a_failing_device_makes_the_replica_unready_until_it_works(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, png: bytes
):
    with serving() as client:
        health = client.app.state.service.health  # type: ignore[attr-defined]
        health.follow(lambda: "ONNX Runtime fails")
        assert client.get("/healthz/ready").status_code == 503
        assert client.get("/healthz/startup").status_code == 200
        assert client.get("/healthz/live").status_code == 200
        assert "bijou_ready 0.0" in client.get("/metrics").text
        assert_problem(client.post("/encode", content=png), 503, "not-ready")
        health.follow(lambda: None)
        assert client.post("/encode", content=png).status_code == 200
