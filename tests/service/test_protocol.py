"""What never reaches the application is answered with a problem all the same, and costs little."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from service import codec, protocol
from tests.service.wire import Live, get, listen, post, read_answer, send_all, wait_for

HEADER_BYTES = 8192


@pytest.fixture(scope="module")
def live(models: codec.ModelSet) -> Iterator[Live]:
    with listen(models, max_header_bytes=HEADER_BYTES, header_deadline_s=0.5, max_body_bytes=2**20) as server:
        yield server


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 32,
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
        b"POST /encode HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n",
        b"POST /encode HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /encode HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /encode HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        b"POST /encode HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
    ],
    ids=[
        "words",
        "tls",
        "bytes in the path",
        "space in a name",
        "no number",
        "negative",
        "two lengths",
        "smuggling",
        "chunk",
    ],
)
def test_malformed_http_is_a_problem(live: Live, sent: bytes):
    with live.connect() as line:
        send_all(line, [sent])
        answer = read_answer(line)
        assert (answer.status, answer.slug, answer.headers["connection"]) == (400, "bad-request", "close")
        assert line.recv(1) == b""


def test_headers_have_a_longest_length_whatever_their_shape(live: Live):
    for flood in (
        [get("/healthz/live", "X: " + "a" * HEADER_BYTES)],
        [get("/healthz/live", *(f"X{i}: {i}" for i in range(HEADER_BYTES // 4)))],
        [get("/" + "a" * HEADER_BYTES)],
        [b"GET /healthz/live HTTP/1.1\r\nX: ", *[b"a" * 1024] * 200],
        [b"GET /healthz/live HTTP/1.1\r\n", *[b"X: a\r\n" * 100] * 200],
    ):
        answer = live.send(*flood)
        assert (answer.status, answer.slug) == (431, "headers-too-large")


def test_chunks_of_a_fair_size_pass(live: Live, png: bytes):
    chunks = [png[i : i + 64] for i in range(0, len(png), 64)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    assert live.send(b"POST /encode HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", body).status == 200


def test_headers_just_short_enough_pass(live: Live):
    assert live.send(get("/healthz/live", "X: " + "a" * (HEADER_BYTES - 100))).status == 200


def test_slow_headers_are_a_problem_and_a_silent_connection_just_ends(live: Live):
    with live.connect() as line:
        line.sendall(b"GET /healthz/live HTTP/1.1\r\n")
        assert read_answer(line).slug == "headers-too-slow"
    with live.connect() as line:
        assert line.recv(1) == b""


def test_the_deadline_of_headers_is_not_that_of_bodies_or_of_idle_connections(live: Live, png: bytes):
    with live.connect() as line:
        line.sendall(get("/healthz/live"))
        assert read_answer(line).status == 200
        time.sleep(0.7)
        whole = post("/encode", png)
        line.sendall(whole[:-10])
        time.sleep(0.7)
        line.sendall(whole[-10:])
        assert read_answer(line).status == 200


def test_a_refused_upload_is_answered_before_it_is_sent(live: Live):
    with live.connect() as line:
        head = "POST /encode HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\nExpect: 100-continue\r\n\r\n"
        line.sendall(head.encode())
        answer = read_answer(line)
        assert (answer.status, answer.slug, answer.headers["connection"]) == (413, "body-too-large", "close")


def test_a_client_that_sends_on_still_reads_its_refusal(live: Live):
    """Closing at once would reset the connection while megabytes are on their way."""
    for _ in range(10):
        with live.connect() as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
            send_all(line, [post("/encode", b"x" * 2**22)])
            assert read_answer(line).slug == "body-too-large"


def test_a_body_that_never_ends_after_its_answer_is_cut_off(live: Live, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(protocol, "DISCARD_S", 0.2)
    monkeypatch.setattr(protocol, "LINGER_S", 0.2)
    head = b"POST /encode HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n"
    with live.connect() as line:
        line.sendall(head)
        assert read_answer(line).slug == "encoded-body"
        wait_for(lambda: _refused(line), "the connection to be cut off")


def _refused(line: socket.socket) -> bool:
    try:
        line.sendall(b"10\r\n" + b"x" * 16 + b"\r\n")
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def test_a_body_that_ends_after_its_answer_leaves_the_connection_usable(live: Live):
    with live.connect() as line:
        whole = post("/encode", b"x" * 1000, "Content-Encoding: gzip")
        line.sendall(whole[:-500])
        assert read_answer(line).slug == "encoded-body"
        line.sendall(whole[-500:] + get("/healthz/live"))
        assert read_answer(line).status == 200


def test_pipelined_requests_are_answered_in_order_and_a_bad_one_ends_them(live: Live):
    with live.connect() as line:
        line.sendall(get("/healthz/live") + get("/nowhere"))
        assert [read_answer(line).status, read_answer(line).status] == [200, 404]
        line.sendall(get("/healthz/live") + b"nonsense\r\n\r\n")
        assert read_answer(line).status == 200


def test_an_upgrade_is_not_taken(live: Live):
    answer = live.send(get("/healthz/live", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"))
    assert answer.status == 200


def test_refusals_are_counted(live: Live):
    live.send(b"nonsense\r\n\r\n")
    assert 'bijou_rejected_total{reason="malformed_http"}' in live.service.metrics.text().decode()
