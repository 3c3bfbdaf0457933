"""The HTTP contract, route by route, on the real application."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from service import __version__, codec, operations
from service.operations import IMAGE_MEDIA_TYPES
from tests.service.conftest import Serving

PROBLEM = "application/problem+json"


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_lossless_round_trip(client: TestClient, png: bytes, pixels: np.ndarray, prefix: str):
    encoded = client.post(f"{prefix}/encode", params={"quality": 100}, content=png)
    assert encoded.status_code == 200
    assert encoded.headers["content-type"] == "image/vnd.bijou"
    assert encoded.headers["bijou-psnr"] == "inf"
    decoded = client.post(f"{prefix}/decode", content=encoded.content)
    assert decoded.headers["content-type"] == "image/png"
    assert np.array_equal(pixels_of(decoded.content), pixels)


def test_headers_of_an_encoding(client: TestClient, png: bytes, models: codec.ModelSet):
    answer = client.post("/encode", params={"quality": 60}, content=png)
    headers = answer.headers
    assert (
        headers["content-digest"] == f"sha-256=:{base64.b64encode(hashlib.sha256(answer.content).digest()).decode()}:"
    )
    assert headers["bijou-model"] == models.default.id
    assert headers["bijou-quality"] == "60"
    assert float(headers["bijou-bits-per-pixel"]) == pytest.approx(len(answer.content) * 8 / (45 * 61), abs=1e-4)
    assert float(headers["bijou-psnr"]) > 20
    assert headers["x-content-type-options"] == "nosniff"
    stages = {part.split(";")[0] for part in headers["server-timing"].split(", ")}
    assert stages == {"queue", "image", "flow", "prior", "entropy"}
    assert "bijou-stable" not in headers
    assert "bijou-generation-changed" not in headers


def test_the_same_request_gives_the_same_bytes(client: TestClient, png: bytes, stream: bytes):
    assert client.post("/encode", content=png).content == stream
    assert client.post("/encode", params={"quality": 75}, content=png).content == stream
    assert client.post("/encode", files={"file": ("any name", png, "text/plain")}).content == stream


def test_targets(client: TestClient, png: bytes):
    small = client.post("/encode", params={"max_bytes": 900}, content=png)
    assert small.status_code == 200, small.text
    assert len(small.content) <= 900
    rate = client.post("/encode", params={"target_bpp": 4}, content=png)
    assert float(rate.headers["bijou-bits-per-pixel"]) <= 4
    good = client.post("/encode", params={"target_psnr": 38}, content=png)
    assert float(good.headers["bijou-psnr"]) >= 38
    impossible = client.post("/encode", params={"max_bytes": 1}, content=png)
    assert (impossible.status_code, impossible.json()["type"]) == (422, "urn:bijou:problem:target-out-of-reach")


def test_stable_encoding_survives_a_generation(client: TestClient, png: bytes):
    first = client.post("/encode", params={"quality": 50, "stable": True}, content=png)
    assert first.headers["bijou-stable"] == "?1"
    decoded = client.post("/decode", content=first.content).content
    assert client.post("/encode", params={"quality": 50}, content=decoded).content == first.content


@pytest.mark.parametrize("effort", [0, 1, 2])
def test_the_effort_is_that_of_the_codec(client: TestClient, png: bytes, models: codec.ModelSet, effort: int):
    picture, target = codec.read_image(png, codec.Limits()), codec.Target(quality=30)
    answer = client.post("/encode", params={"quality": 30, "effort": effort}, content=png)
    assert answer.content == codec.encode(picture, models.default, target, effort=effort).stream
    assert client.post("/decode", content=answer.content).status_code == 200


@pytest.mark.parametrize("fmt", IMAGE_MEDIA_TYPES)
def test_output_formats(client: TestClient, stream: bytes, fmt: str):
    by_query = client.post("/decode", params={"format": fmt}, content=stream, headers={"accept": "text/html"})
    by_accept = client.post("/decode", content=stream, headers={"accept": IMAGE_MEDIA_TYPES[fmt]})  # type: ignore[index]
    assert by_query.headers["content-type"] == by_accept.headers["content-type"] == f"image/{fmt}"
    assert by_query.content == by_accept.content
    assert by_query.headers["vary"] == "Accept"
    assert pixels_of(by_query.content).shape == (45, 61, 3)


def test_decode_scale_and_quality(client: TestClient, stream: bytes):
    half = client.post("/decode", params={"scale": 2}, content=stream)
    assert pixels_of(half.content).shape == (23, 31, 3)
    low = client.post("/decode", params={"format": "jpeg", "quality": 10}, content=stream)
    high = client.post("/decode", params={"format": "jpeg", "quality": 95}, content=stream)
    assert len(low.content) < len(high.content)
    refused = client.post("/decode", params={"format": "png", "quality": 10}, content=stream)
    assert (refused.status_code, refused.json()["type"]) == (422, "urn:bijou:problem:bad-option")


def test_re_encode(client: TestClient, png: bytes, stream: bytes):
    same = client.post("/re-encode", content=stream)
    assert same.content == stream
    assert same.headers["bijou-generation-changed"] == "?0"
    lower = client.post("/re-encode", params={"quality": 30}, content=stream)
    assert len(lower.content) < len(stream)
    assert lower.headers["bijou-generation-changed"] == "?1"
    assert client.post("/re-encode", content=png).content == stream
    metadata = client.post("/re-encode", params={"metadata": "all"}, content=stream)
    assert metadata.status_code == 422


def test_inspect(client: TestClient, stream: bytes, models: codec.ModelSet):
    report = client.post("/inspect", content=stream).json()
    assert (report["width"], report["height"], report["quality"]) == (61, 45, 75)
    assert report["model_id"] == models.default.id
    assert report["total_bytes"] == len(stream)
    assert report["complete"] is True
    head = client.post("/inspect", content=stream[: len(stream) // 2]).json()
    assert head["complete"] is False


def test_models_and_info(client: TestClient, models: codec.ModelSet, png: bytes, stream: bytes):
    served = client.get("/v1/models").json()
    assert [m["id"] for m in served] == [m.id for m in models]
    assert [m["default"] for m in served].count(True) == 1
    info = client.get("/info").json()
    assert info["version"] == __version__
    assert info["limits"]["pixels"] == 50_000_000
    assert info["models"] == served
    assert info["runtime"]["providers"].keys() == {"CPUExecutionProvider"}
    assert info["runtime"]["intra_op_threads"] == 1
    assert info["batch"]["items"] >= 1
    for name in (models.default.id, models.default.name):
        assert client.post("/encode", params={"model": name}, content=png).content == stream


def test_probes_and_metrics(client: TestClient, png: bytes):
    for probe in ("live", "ready", "startup"):
        assert client.get(f"/healthz/{probe}").json() == {"state": "ready"}
    client.post("/encode", content=png)
    client.get("/no/such/route")
    text = client.get("/metrics").text
    assert "bijou_ready 1.0" in text
    assert 'bijou_http_requests_total{code="200",method="POST",route="/encode"}' in text
    assert 'bijou_http_requests_total{code="404",method="GET",route="unmatched"}' in text
    assert 'bijou_stage_duration_seconds_count{op="encode",stage="flow"}' in text
    assert "/no/such/route" not in text
    assert 'bijou_queue_requests{op="encode"} 0.0' in text


def test_api_description_covers_bodies_headers_and_problems(client: TestClient):
    paths = client.get("/openapi.json").json()["paths"]
    for path in ("/encode", "/decode", "/re-encode", "/inspect"):
        for prefix in ("", "/v1"):
            route = paths[prefix + path]["post"]
            assert "multipart/form-data" in route["requestBody"]["content"]
            assert {"400", "413", "415", "422", "503", "504"} <= set(route["responses"])
            assert PROBLEM in route["responses"]["422"]["content"]
    assert "Content-Digest" in paths["/encode"]["post"]["responses"]["200"]["headers"]
    assert client.get("/docs").status_code == 200


def test_golden_check_decides_readiness(serving: Serving, monkeypatch: pytest.MonkeyPatch, png: bytes):
    def damaged(model: codec.Model) -> None:
        raise codec.GoldenCheckError(f"{model.id} differs")

    monkeypatch.setattr(codec, "golden_check", damaged)
    with serving() as client:
        assert client.get("/healthz/live").status_code == 200
        for probe in ("ready", "startup"):
            answer = client.get(f"/healthz/{probe}")
            assert (answer.status_code, answer.json()) == (503, {"state": "failed"})
        refused = client.post("/encode", content=png)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:bijou:problem:not-ready")
        assert "bijou_golden_check_failures_total 1.0" in client.get("/metrics").text


def test_draining_refuses_work_and_closes(serving: Serving, png: bytes):
    with serving() as client:
        client.app.state.service.health.drain()  # type: ignore[attr-defined]
        assert client.get("/healthz/ready").status_code == 503
        assert client.get("/healthz/live").status_code == 200
        refused = client.post("/encode", content=png)
        assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        assert int(refused.headers["retry-after"]) >= 1


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Inspections wait until the event is set."""
    opened, inspect = threading.Event(), operations.inspect

    def waiting(data: bytes, limits: codec.Limits) -> object:
        opened.wait(30)
        return inspect(data, limits)

    monkeypatch.setattr(operations, "inspect", waiting)
    yield opened
    opened.set()


def test_full_queue_is_shed_while_probes_answer(serving: Serving, gate: threading.Event, stream: bytes):
    with serving(codec_workers=1, max_requests=1) as client:
        codes: list[int] = []
        thread = threading.Thread(target=lambda: codes.append(client.post("/inspect", content=stream).status_code))
        thread.start()
        while not client.app.state.service.flights.budget.taken:  # type: ignore[attr-defined]
            pass
        refused = client.post("/inspect", content=stream)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:bijou:problem:queue-full")
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/healthz/ready").status_code == 200
        gate.set()
        thread.join()
        assert codes == [200]
        assert client.post("/inspect", content=stream).status_code == 200


def test_deadline_answers_but_keeps_the_slot_of_a_busy_thread(serving: Serving, gate: threading.Event, stream: bytes):
    with serving(codec_workers=1, max_requests=1, request_deadline_s=0.05) as client:
        late = client.post("/inspect", content=stream)
        assert (late.status_code, late.json()["type"]) == (504, "urn:bijou:problem:deadline")
        assert client.post("/inspect", content=stream).status_code == 503
        gate.set()
        while client.app.state.service.flights.budget.taken:  # type: ignore[attr-defined]
            pass
        assert client.post("/inspect", content=stream).status_code == 200
