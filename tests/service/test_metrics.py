"""Every metric of the contract is there, named and labelled as dashboards expect, and says nothing of users."""

from __future__ import annotations

import asyncio
import re
import time

import pytest
from fastapi.testclient import TestClient

from service.heartbeat import BEATS_PER_LOOK, Heartbeat

CONTRACT = {
    "bijou_http_requests_total": {"route", "method", "code"},
    "bijou_http_request_duration_seconds_count": {"route"},
    "bijou_stage_duration_seconds_count": {"op", "stage"},
    "bijou_queue_requests": {"op"},
    "bijou_queue_pixels": {"op"},
    "bijou_queue_oldest_age_seconds": set(),
    "bijou_batch_items_count": {"op"},
    "bijou_batch_pixels_count": {"op"},
    "bijou_batch_dispatch_total": {"op", "reason"},
    "bijou_rejected_total": {"reason"},
    "bijou_input_bytes_total": set(),
    "bijou_output_bytes_total": set(),
    "bijou_pixels_total": {"op"},
    "bijou_bits_per_pixel_count": set(),
    "bijou_checksum_mismatch_total": set(),
    "bijou_golden_check_failures_total": set(),
    "bijou_model_info": {"id", "name", "device"},
    "bijou_build_info": {"version", "python"},
    "bijou_ready": set(),
    "bijou_event_loop_lag_seconds": set(),
}
SAMPLE = re.compile(r"(bijou_\w+?)(?:\{(.*)\})? \S+")


@pytest.fixture(scope="module")
def samples(client: TestClient, png: bytes) -> dict[str, list[dict[str, str]]]:
    """Name -> the labels of its samples, after some work and a refusal."""
    client.post("/encode?secret_option=1", content=png)
    client.post("/decode", content=client.post("/encode", content=png).content)
    client.post("/encode", content=b"", headers={"content-encoding": "secret"})
    found: dict[str, list[dict[str, str]]] = {}
    for line in client.get("/metrics").text.splitlines():
        if match := SAMPLE.fullmatch(line):
            found.setdefault(match[1], []).append(dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")))
    return found


@pytest.mark.parametrize("name", CONTRACT)
def test_a_metric_of_the_contract(samples: dict[str, list[dict[str, str]]], name: str):
    assert samples[name]
    assert all(set(labels) == CONTRACT[name] for labels in samples[name])


def test_cancellations_are_declared_before_there_are_any(client: TestClient):
    assert "# TYPE bijou_cancelled_total counter" in client.get("/metrics").text


def test_labels_hold_nothing_of_users(samples: dict[str, list[dict[str, str]]]):
    values = {value for found in samples.values() for labels in found for value in labels.values()}
    assert not [value for value in values if "secret" in value]


def test_the_heartbeat_notices_a_blocked_loop_and_looks_every_second():
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1

    async def scenario() -> float:
        heart = Heartbeat(look)
        beating = asyncio.create_task(heart.beat())
        await asyncio.sleep(0.01)
        time.sleep(0.6)  # noqa: ASYNC251  blocking the loop is what is tested
        while not looks:  # noqa: ASYNC110  the heart has no event to wait for
            await asyncio.sleep(0.01)
        beating.cancel()
        return heart.worst_lag_s()

    assert asyncio.run(scenario()) > 0.2
    assert BEATS_PER_LOOK > 1
