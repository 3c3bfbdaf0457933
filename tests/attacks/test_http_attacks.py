"""Requests made to hurt, sent to a real server: each meets its named refusal, in bounded memory."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator

import pytest

from tests.e2e.process import Running, running
from tests.service.wire import connect, get, post, read_answer, send_all, wait_for

BODY_BYTES = 2**20
DEADLINE_S = 1.0
GROWTH_BYTES = 32 * 2**20
CHUNKED = b"POST /encode HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
FORM = "Content-Type: multipart/form-data; boundary=b"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = {
        "max_body_bytes": BODY_BYTES,
        "max_header_bytes": 2**14,
        "header_deadline_s": DEADLINE_S,
        "request_deadline_s": DEADLINE_S,
        "max_requests": 16,
    }
    with running(tmp_path_factory.mktemp("attacked"), **settings) as server:
        yield server


def chunks(total: int, size: int) -> Iterable[bytes]:
    piece = b"%x\r\n%b\r\n" % (size, b"x" * size)
    for _ in range(0, total, size):
        yield piece


def form(parts: Iterable[bytes]) -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


FLOODS = {
    "a body declared too large": ([post("/encode", b"x" * (BODY_BYTES + 1))], 413, "body-too-large"),
    "a body of 64 MB declared as 2^60": (
        [b"POST /encode HTTP/1.1\r\nHost: x\r\nContent-Length: 1152921504606846976\r\n\r\n", *[b"x" * BODY_BYTES] * 64],
        413,
        "body-too-large",
    ),
    "64 MB in chunks": ([CHUNKED, *chunks(64 * BODY_BYTES, 2**16)], 413, "body-too-large"),
    "one chunk that claims 2^60": ([CHUNKED, b"fffffffffffffff\r\n", *[b"x" * BODY_BYTES] * 64], 413, "body-too-large"),
    "a chunk beyond 64 bits": ([CHUNKED, b"f" * 17 + b"\r\n"], 400, "bad-request"),
    "64 MB in chunks of one byte": ([CHUNKED, *[b"1\r\nx\r\n" * 2**16] * 160], 431, "headers-too-large"),
    "64 MB of trailers": ([CHUNKED, b"0\r\n", *[b"X: y\r\n" * 2**16] * 160], 431, "headers-too-large"),
    "64 MB of headers": ([b"GET / HTTP/1.1\r\n", *[b"X: y\r\n" * 2**16] * 160], 431, "headers-too-large"),
    "64 MB of one header": ([b"GET / HTTP/1.1\r\nX: ", *[b"x" * BODY_BYTES] * 64], 431, "headers-too-large"),
    "64 MB of path": ([b"GET /", *[b"x" * BODY_BYTES] * 64], 431, "headers-too-large"),
    "64 MB of empty lines": ([b"\r\n" * 2**19] * 64, 431, "headers-too-large"),
    "a form of 10000 parts": (
        [post("/encode", form([b'Content-Disposition: form-data; name="a"\r\n\r\nx'] * 10_000), FORM)],
        400,
        "bad-request",
    ),
    "a form of 1000 files": (
        [post("/encode", form([b'Content-Disposition: form-data; name="file"; filename="f"\r\n\r\nx'] * 1_000), FORM)],
        400,
        "bad-request",
    ),
    "a part with a name of 900 kB": (
        [post("/encode", form([b'Content-Disposition: form-data; name="' + b"a" * 900_000 + b'"\r\n\r\nx']), FORM)],
        400,
        "bad-request",
    ),
    "a form that never ends": ([post("/encode", b"--b\r\n" * 1000, FORM)], 400, "bad-request"),
    "a gzip bomb": ([post("/encode", b"\x1f\x8b" + bytes(99), "Content-Encoding: gzip")], 415, "encoded-body"),
    "a thousand options": (
        [post("/encode?" + "&".join(f"o{i}={i}" for i in range(1_000)), b"x")],
        422,
        "bad-option",
    ),
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods(server: Running, name: str):
    parts, status, slug = FLOODS[name]
    server.send(get("/healthz/live"))
    before = server.peak_bytes()
    answer = server.send(*parts)
    assert (answer.status, answer.slug) == (status, slug)
    assert len(answer.body) < 4096, "a refusal is short whatever was sent"
    assert server.peak_bytes() - before < GROWTH_BYTES


def test_slow_bodies_get_504_and_hold_no_place_for_longer(server: Running):
    lines = [connect(server.port) for _ in range(16)]
    try:
        for line in lines:
            line.sendall(post("/encode", b"x" * 1000)[:-500])
        wait_for(lambda: 'op="encode"} 16.0' in server.send(get("/metrics")).body.decode(), "the slow ones")
        assert server.send(get("/healthz/ready")).status == 200
        full = server.send(post("/encode", b"x"))
        assert (full.status, full.slug) == (503, "queue-full")
        assert int(full.headers["retry-after"]) >= 1
        assert {read_answer(line).slug for line in lines} == {"deadline"}
        assert server.send(post("/encode", b"x")).slug == "unsupported-image"
    finally:
        for line in lines:
            line.close()


def test_a_byte_now_and_then_does_not_move_the_deadline(server: Running):
    for begin, slug in ((post("/encode", b"x" * 1000)[:-900], "deadline"), (b"GET /", "headers-too-slow")):
        with connect(server.port) as line:
            started = time.monotonic()
            send_all(line, [begin])
            line.settimeout(0.1)
            for _ in range(100):
                try:
                    if line.recv(1, socket.MSG_PEEK):
                        break
                except TimeoutError:
                    send_all(line, [b"a"])
            line.settimeout(30)
            assert read_answer(line).slug == slug
            assert time.monotonic() - started < DEADLINE_S * 10


def test_two_hundred_silent_connections_are_closed_and_harm_nobody(server: Running):
    lines = [connect(server.port) for _ in range(200)]
    try:
        assert server.send(get("/healthz/ready")).status == 200
        assert [line.recv(1) for line in lines] == [b""] * 200
    finally:
        for line in lines:
            line.close()


def test_clients_that_never_read_hold_no_place(server: Running):
    lines = [connect(server.port) for _ in range(8)]
    try:
        for line in lines:
            line.sendall(post("/encode", b"x" * 1000) * 20)
        wait_for(lambda: 'op="encode"} 0.0' in server.send(get("/metrics")).body.decode(), "places to be free")
        assert server.send(get("/healthz/ready")).status == 200
    finally:
        for line in lines:
            line.close()
