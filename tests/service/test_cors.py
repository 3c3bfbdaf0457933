"""CORS is off unless it is asked for, and then for the named origins only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import Serving
from tests.service.test_problems import assert_problem

ORIGIN, OTHER = "https://pictures.example", "https://elsewhere.example"
ASK = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}


@pytest.fixture(scope="module")
def shared(serving: Serving) -> Iterator[TestClient]:
    with serving(cors_origins=f"{ORIGIN}, https://second.example") as client:
        yield client


def test_off_by_default(client: TestClient):
    answer = client.get("/models", headers={"origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert_problem(client.options("/encode", headers={"origin": ORIGIN, **ASK}), 405, "method-not-allowed")


def test_a_preflight(shared: TestClient):
    allowed = shared.options("/encode", headers={"origin": ORIGIN, **ASK})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (204, ORIGIN)
    assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
    refused = shared.options("/encode", headers={"origin": OTHER, **ASK})
    assert_problem(refused, 400, "bad-request")
    assert "access-control-allow-origin" not in refused.headers


def test_answers_and_refusals_can_be_read_by_the_page(shared: TestClient, png: bytes):
    for answer in (
        shared.post("/encode", content=png, headers={"origin": ORIGIN}),
        shared.post("/encode", content=b"", headers={"origin": ORIGIN}),
        shared.post("/encode", content=b"x", headers={"origin": ORIGIN, "content-encoding": "gzip"}),
    ):
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "Bijou-Psnr" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in shared.get("/models", headers={"origin": OTHER}).headers
