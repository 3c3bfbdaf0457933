"""Every refusal is a problem document with the right status, and echoes nothing."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from PIL import Image

from service import codec, operations, problems
from tests.service.conftest import Serving

SECRET = "xyzzy-from-the-client"


def assert_problem(answer: Response, status: int, slug: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["type"] == f"urn:bijou:problem:{slug}"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert SECRET not in answer.text
    assert "Traceback" not in answer.text


def all_subclasses(cls: type[Exception]) -> set[type[Exception]]:
    return {cls, *(c for child in cls.__subclasses__() for c in all_subclasses(child))}


@pytest.mark.parametrize(
    "cls", sorted(all_subclasses(codec.BijouError) | all_subclasses(problems.ServiceError), key=str)
)
def test_every_error_class_has_a_row(cls: type[Exception]):
    roots = {codec.BijouError, problems.ServiceError, codec.StreamError}
    assert cls in roots or any(c in problems.TABLE for c in cls.__mro__ if c not in roots)


@pytest.mark.parametrize(
    ("route", "body", "status", "slug"),
    [
        ("/encode", b"", 400, "malformed-request"),
        ("/encode", SECRET.encode(), 415, "unsupported-image"),
        ("/encode?quality=0", b"x", 422, "bad-option"),
        ("/encode?quality=101", b"x", 422, "bad-option"),
        ("/encode?quality=nan", b"x", 422, "bad-option"),
        ("/encode?quality=74.3", "png", 422, "bad-option"),
        (f"/encode?quality={SECRET}", b"x", 422, "bad-option"),
        ("/encode?quality=5&max_bytes=9", b"x", 422, "bad-option"),
        ("/encode?target_bpp=inf", b"x", 422, "bad-option"),
        ("/encode?quality=5&quality=6", b"x", 422, "bad-option"),
        ("/encode?effort=3", b"x", 422, "bad-option"),
        ("/encode?effort=-1", b"x", 422, "bad-option"),
        ("/encode?effort=0.5", b"x", 422, "bad-option"),
        ("/encode?effort=fast", b"x", 422, "bad-option"),
        ("/encode?metadata=some", b"x", 422, "bad-option"),
        (f"/encode?{SECRET}=1", b"x", 422, "bad-option"),
        (f"/encode?model=%0a{SECRET}", b"x", 422, "bad-option"),
        ("/encode?model=no-such-model", "png", 409, "unknown-model"),
        ("/decode", b"", 400, "malformed-request"),
        ("/decode", SECRET.encode(), 415, "not-a-stream"),
        ("/decode?format=bmp", b"x", 422, "bad-option"),
        ("/decode?scale=3", b"x", 422, "bad-option"),
        ("/decode?prefix=1", b"x", 422, "bad-option"),
        ("/re-encode?quality=-1", b"x", 422, "bad-option"),
        ("/re-encode?effort=3", b"x", 422, "bad-option"),
        ("/re-encode", SECRET.encode(), 415, "unsupported-image"),
        ("/inspect", SECRET.encode(), 415, "not-a-stream"),
        ("/inspect?verbose=1", b"x", 422, "bad-option"),
        (f"/{SECRET}", b"x", 404, "not-found"),
        ("/encode/", b"x", 404, "not-found"),
        ("/models", b"x", 405, "method-not-allowed"),
    ],
)
def test_refusals(client: TestClient, png: bytes, route: str, body: bytes | str, status: int, slug: str):
    assert_problem(client.post(route, content=png if body == "png" else body), status, slug)


def test_bad_options_are_listed_by_name(client: TestClient):
    answer = client.post("/encode", params={"quality": 0, "metadata": "some"}, content=b"x").json()
    assert {fault["option"] for fault in answer["errors"]} == {"quality", "metadata"}
    unknown = client.post("/decode", params={"sclae": 2}, content=b"x").json()
    assert "format, scale, quality" in unknown["detail"]


def test_method_not_allowed_names_the_methods(client: TestClient):
    assert client.get("/encode").headers["allow"] == "POST"


def test_accept_without_an_image(client: TestClient, stream: bytes):
    assert_problem(client.post("/decode", content=stream, headers={"accept": "text/html"}), 406, "not-acceptable")


def test_corrupt_image(client: TestClient, png: bytes):
    assert_problem(client.post("/encode", content=png[: len(png) // 2]), 422, "corrupt-image")


def test_sixteen_bit_image(client: TestClient):
    file = io.BytesIO()
    Image.new("I;16", (4, 4)).save(file, "PNG")
    assert_problem(client.post("/encode", content=file.getvalue()), 415, "unsupported-image")


def test_truncated_and_damaged_streams(client: TestClient, stream: bytes):
    assert_problem(client.post("/decode", content=stream[:-1]), 422, "corrupt-stream")
    damaged = bytearray(stream)
    damaged[-1] ^= 1
    assert_problem(client.post("/decode", content=bytes(damaged)), 422, "corrupt-stream")
    assert "bijou_checksum_mismatch_total" in client.get("/metrics").text


@pytest.mark.parametrize(("limit", "name"), [("max_pixels", "pixels"), ("max_side_pixels", "side_pixels")])
def test_picture_limits_hold_for_images_and_streams(serving: Serving, png: bytes, stream: bytes, limit: str, name: str):
    with serving(**{limit: 50}) as client:
        for route, body in (("/encode", png), ("/decode", stream), ("/inspect", stream), ("/re-encode", stream)):
            answer = client.post(route, content=body)
            assert_problem(answer, 422, "over-limit")
            assert (answer.json()["limit"], answer.json()["maximum"]) == (name, 50)


def test_body_limit_declared_and_streamed(serving: Serving):
    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 10

    with serving(max_body_bytes=100) as client:
        declared = client.post("/encode", content=b"x" * 101)
        assert_problem(declared, 413, "body-too-large")
        assert declared.headers["connection"] == "close"
        assert_problem(client.post("/encode", content=chunks()), 413, "body-too-large")
        form = {"content-type": "multipart/form-data; boundary=b"}
        assert_problem(client.post("/encode", content=chunks(), headers=form), 413, "body-too-large")
        assert_problem(client.post("/encode", content=b"x" * 100), 415, "unsupported-image")


def test_content_encoding(client: TestClient):
    answer = client.post("/encode", content=b"x", headers={"content-encoding": "gzip"})
    assert_problem(answer, 415, "encoded-body")


@pytest.mark.parametrize(
    "parts",
    [{"other": ("a", b"x", "image/png")}, [("file", ("a", b"x")), ("file", ("b", b"y"))]],
    ids=["other-field", "two-files"],
)
def test_forms_without_exactly_one_file(client: TestClient, parts: object):
    answer = client.post("/encode", files=parts)  # type: ignore[arg-type]
    assert_problem(answer, 400, "malformed-request" if isinstance(parts, dict) else "bad-request")


def test_form_without_boundary(client: TestClient):
    answer = client.post("/encode", content=b"x", headers={"content-type": "multipart/form-data"})
    assert_problem(answer, 400, "bad-request")


def test_unexpected_errors_say_nothing(client: TestClient, monkeypatch: pytest.MonkeyPatch, stream: bytes):
    def broken(data: bytes, limits: codec.Limits) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(operations, "inspect", broken)
    assert_problem(client.post("/inspect", content=stream), 500, "internal-error")
