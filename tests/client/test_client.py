"""Both clients against a real server: what they return, what they refuse, how they recover."""

from __future__ import annotations

import hashlib
import inspect
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import numpy as np
import pytest
from PIL import Image

from service.client import (
    AsyncClient,
    Client,
    ClientError,
    ForeignAnswerError,
    IntegrityError,
    OverloadedError,
    RefusedError,
    Retries,
    Transfer,
    UnreachableError,
)
from service.client.errors import problem, retry_after_s
from tests.client.conftest import QUICK, Ask
from tests.client.faults import Proxy
from tests.live_server import free_port, live_server


def pixels_of(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


class TestMethods:
    def test_a_lossless_round_trip(self, ask: Ask, server: str, png: bytes, pixels: np.ndarray):
        stream = ask(server, "encode", png, quality=100)
        assert (stream.quality, stream.psnr_db, stream.changed) == (100, float("inf"), None)
        assert stream.digest == hashlib.sha256(stream.data).hexdigest()
        assert stream.bits_per_pixel == pytest.approx(len(stream.data) * 8 / (61 * 45), abs=1e-4)
        assert {"queue", "flow", "prior", "entropy"} <= set(stream.seconds)
        image = ask(server, "decode", stream.data)
        assert image.media_type == "image/png"
        assert np.array_equal(pixels_of(image.data), pixels)

    def test_options_reach_the_service(self, ask: Ask, server: str, png: bytes):
        small = ask(server, "encode", png, max_bytes=900, stable=True)
        assert len(small.data) <= 900
        assert small.stable is not None
        webp = ask(server, "decode", small.data, format="webp", scale=4)
        assert webp.media_type == "image/webp"
        assert pixels_of(webp.data).shape[:2] == (12, 16)
        assert ask(server, "re_encode", small.data).changed is False
        assert ask(server, "re_encode", small.data, quality=5).changed is True

    def test_effort_reaches_the_service(self, ask: Ask, server: str, png: bytes):
        plain, weighed = (ask(server, "encode", png, quality=30, effort=effort).data for effort in (0, 1))
        assert plain == ask(server, "encode", png, quality=30).data != weighed
        assert ask(server, "re_encode", png, quality=30, effort=1).data == weighed

    def test_inspect_and_facts(self, ask: Ask, server: str, png: bytes):
        stream = ask(server, "encode", png, quality=40).data
        whole, head = ask(server, "inspect", stream), ask(server, "inspect", stream[:-20])
        assert (whole.width, whole.height, whole.quality, whole.complete) == (61, 45, 40, True)
        assert sum(s.length for s in whole.sections) < whole.total_bytes == len(stream)
        assert head.complete is False
        assert whole.model_id == next(m["id"] for m in ask(server, "models") if m["default"])
        assert ask(server, "info")["limits"]["pixels"] == 50_000_000
        assert ask(server, "ready") is True
        assert ask(f"http://127.0.0.1:{free_port()}", "ready") is False

    @pytest.mark.parametrize("kind", ["bytes", "path", "file"])
    def test_every_source_gives_the_same(self, ask: Ask, server: str, png: bytes, tmp_path: Path, kind: str):
        path = tmp_path / "picture.png"
        path.write_bytes(png)
        with path.open("rb") as file:
            source = {"bytes": png, "path": path, "file": file}[kind]
            result = ask(server, "encode", source)
        assert result.data == ask(server, "encode", png).data

    def test_to_a_file_with_progress(self, ask: Ask, server: str, png: bytes, tmp_path: Path):
        heard: list[Transfer] = []
        target = tmp_path / "new" / "picture.bij"
        result = ask(server, "encode", png, to=target, progress=heard.append)
        assert (result.body, result.path) == (None, target)
        assert target.read_bytes() == result.data == ask(server, "encode", png).data
        assert list(target.parent.iterdir()) == [target]
        sent = [step for step in heard if step.stage == "send"]
        received = [step for step in heard if step.stage == "receive"]
        assert (sent[-1].done_bytes, sent[-1].total_bytes) == (len(png), len(png))
        assert received[-1].done_bytes == received[-1].total_bytes == len(result.data)

    def test_the_two_clients_have_the_same_methods(self):
        def public(cls: type) -> dict[str, inspect.Signature]:
            members = inspect.getmembers(cls, inspect.isfunction)
            return {name: inspect.signature(f) for name, f in members if not name.startswith("_")}

        assert public(Client) == public(AsyncClient)


class TestRefusals:
    def test_a_problem_is_typed_and_not_tried_again(self, ask: Ask, proxy: Proxy):
        with pytest.raises(RefusedError, match="not an image") as caught:
            ask(proxy.url, "encode", b"nonsense")
        assert (caught.value.status, caught.value.slug) == (415, "unsupported-image")
        assert proxy.requests == 1

    def test_members_of_a_problem(self, ask: Ask, server: str, png: bytes):
        with pytest.raises(RefusedError) as caught:
            ask(server, "encode", png, quality=0)
        assert caught.value.slug == "bad-option"
        assert caught.value.members["errors"][0]["option"] == "quality"

    def test_faults_of_the_caller(self, ask: Ask, server: str, tmp_path: Path):
        with pytest.raises(ValueError, match="http"):
            ask("ftp://somewhere", "info")
        with pytest.raises(FileNotFoundError):
            ask(server, "encode", tmp_path / "missing.png")
        with pytest.raises(ValueError, match="attempts"):
            Retries(attempts=0)

    def test_an_answer_that_is_no_problem_document(self):
        error = problem(502, {"content-type": "text/html", "retry-after": "7"}, b"<h1>")
        assert isinstance(error, OverloadedError)
        assert (error.slug, error.title, error.detail, error.retry_after_s) == ("", "HTTP 502 Bad Gateway", "", 7)
        assert problem(418, {"content-type": "application/json"}, b"[1]").title.startswith("HTTP 418")

    def test_retry_after_in_its_forms(self):
        assert retry_after_s("3") == 3
        assert retry_after_s("Mon, 01 Jan 2001 00:00:00 GMT") == 0
        assert (retry_after_s("Fri, 31 Dec 2100 23:59:59 GMT") or 0) > 10**9
        assert retry_after_s("soon") is retry_after_s(None) is None


class TestRecovery:
    @pytest.mark.parametrize("fault", ["full", "gateway", "drop", "truncate", "corrupt"])
    def test_every_passing_fault_is_survived(self, ask: Ask, proxy: Proxy, server: str, png: bytes, fault: str):
        proxy.faults.extend([fault, fault])
        heard: list[Transfer] = []
        result = ask(proxy.url, "encode", png, progress=heard.append)
        assert result.data == ask(server, "encode", png).data
        assert proxy.requests == 3
        assert [step.attempt for step in heard if step.stage == "retry"] == [1, 2]

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            ("full", OverloadedError),
            ("gateway", OverloadedError),
            ("drop", UnreachableError),
            ("truncate", UnreachableError),
            ("corrupt", IntegrityError),
        ],
    )
    def test_every_lasting_fault_fails_clearly(
        self, ask: Ask, proxy: Proxy, png: bytes, tmp_path: Path, fault: str, error: type[ClientError]
    ):
        proxy.forever = fault
        with pytest.raises(error):
            ask(proxy.url, "encode", png, to=tmp_path / "picture.bij")
        assert proxy.requests == QUICK.attempts
        assert list(tmp_path.iterdir()) == []

    def test_an_open_file_is_sent_again_from_where_it_stood(self, ask: Ask, proxy: Proxy, server: str, png: bytes):
        proxy.faults.extend(["drop", "corrupt"])
        file = io.BytesIO(b"prefix" + png)
        file.seek(6)
        assert ask(proxy.url, "encode", file).data == ask(server, "encode", png).data

    def test_a_foreign_answer_is_not_tried_again(self, ask: Ask, proxy: Proxy, png: bytes):
        for method in (("encode", png), ("decode", png), ("info",)):
            proxy.faults.append("foreign")
            with pytest.raises(ForeignAnswerError, match="check that the URL"):
                ask(proxy.url, *method)
        assert proxy.requests == 3

    def test_retry_after_is_honoured(self, ask: Ask, proxy: Proxy, png: bytes):
        proxy.retry_after_s = "1"
        proxy.faults.append("full")
        heard: list[Transfer] = []
        started = time.monotonic()
        ask(proxy.url, "encode", png, progress=heard.append)
        assert time.monotonic() - started >= 1
        assert next(step.wait_s for step in heard if step.stage == "retry") >= 1

    def test_a_wait_beyond_the_limit_is_not_begun(self, ask: Ask, proxy: Proxy, png: bytes):
        proxy.retry_after_s, proxy.forever = "3600", "full"
        with pytest.raises(OverloadedError) as caught:
            ask(proxy.url, "encode", png)
        assert caught.value.retry_after_s == 3600
        assert proxy.requests == 1


class TestConnections:
    def test_one_connection_serves_many_calls(self, proxy: Proxy, png: bytes):
        with Client(proxy.url, retries=QUICK) as client:
            for _ in range(5):
                client.encode(png)
        assert (proxy.requests, proxy.connections) == (5, 1)

    def test_threads_share_a_client(self, server: str, png: bytes):
        with Client(server) as client, ThreadPoolExecutor(8) as pool:
            streams = list(pool.map(lambda _: client.encode(png).data, range(24)))
        assert len(set(streams)) == 1

    def test_tasks_share_a_client(self, server: str, png: bytes):
        streams: list[bytes] = []

        async def run() -> None:
            async def one(client: AsyncClient) -> None:
                streams.append((await client.encode(png)).data)

            async with AsyncClient(server, connections=8) as client, anyio.create_task_group() as group:
                for _ in range(24):
                    group.start_soon(one, client)

        anyio.run(run)
        assert len(streams) == 24
        assert len(set(streams)) == 1


def test_a_crowd_before_a_small_queue(png: bytes):
    """One worker and two slots for 24 callers: most meet 503s, and all get the same right answer."""
    waits: list[Transfer] = []
    with live_server(max_requests=2, codec_workers=1) as url:
        patient = Retries(attempts=1000, total_s=120, wait_s=0.05, most_wait_s=0.5)
        with Client(url, retries=patient, connections=24) as client, ThreadPoolExecutor(24) as pool:
            streams = list(pool.map(lambda _: client.encode(png, progress=waits.append).data, range(24)))
    assert len(set(streams)) == 1
    refused = [step for step in waits if step.stage == "retry"]
    assert refused
    assert all("queue" in step.reason for step in refused)


def test_a_restart_in_between(png: bytes):
    port = free_port()
    with live_server(port) as url:
        before = Client(url, retries=Retries(attempts=1000, total_s=60, wait_s=0.05, most_wait_s=0.5))
        first = before.encode(png).data
    results: list[bytes] = []
    caller = threading.Thread(target=lambda: results.append(before.encode(png).data))
    caller.start()  # nobody listens yet
    with live_server(port):
        caller.join(timeout=60)
    before.close()
    assert results == [first]
