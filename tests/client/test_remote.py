"""`bijou remote` against a real server: folders, faults, going on after an interruption, exit codes."""

from __future__ import annotations

import hashlib
import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from service import cli_remote
from service.cli_batch import IMAGE_SUFFIXES, JOURNAL, Journal, Order, PlanError, Task, plan
from service.cli_files import BAD_INPUT, LIMITS, MODEL, OTHER, SERVICE, USAGE
from service.client import Client
from tests.client.faults import Proxy
from tests.live_server import ROOT, environment, free_port

INTERRUPTED = 128 + signal.SIGINT


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "service", "remote", *map(str, arguments)]


def remote(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments), capture_output=True, cwd=ROOT, env=environment(), timeout=300, check=False, text=True
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def here(*arguments: str | Path) -> Result:
    """The same in this process, where no interpreter has to start."""
    return CliRunner().invoke(cli_remote.app, [str(argument) for argument in arguments])


def picture(seed: int, side: int = 24) -> bytes:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    file = io.BytesIO()
    small.resize((side, side), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures in two folders, and what is none."""
    top = tmp_path / "in"
    (top / "deep").mkdir(parents=True)
    for i in range(3):
        (top / f"{i}.png").write_bytes(picture(i))
        (top / "deep" / f"{i}.png").write_bytes(picture(10 + i))
    (top / "notes.txt").write_text("no picture")
    return top


def outputs(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.*")) if p.name != JOURNAL}


class TestFolders:
    def test_there_and_back(self, folder: Path, server: str, tmp_path: Path):
        streams, images = tmp_path / "streams", tmp_path / "images"
        done = remote("encode", folder, "-o", f"{streams}/", "--url", server, "--lossless", "--jobs", "3")
        assert done.returncode == 0, done.stderr
        assert sorted(outputs(streams)) == ["0.bij", "1.bij", "2.bij", "deep/0.bij", "deep/1.bij", "deep/2.bij"]
        assert "done" in done.stderr
        back = remote("decode", streams, "-o", f"{images}/", "--url", server, "--format", "webp")
        assert back.returncode == 0, back.stderr
        for path in folder.rglob("*.png"):
            again = (images / path.relative_to(folder)).with_suffix(".webp")
            assert np.array_equal(np.asarray(Image.open(again).convert("RGB")), np.asarray(Image.open(path)))

    def test_re_encode_gives_what_the_client_gives(self, folder: Path, server: str, tmp_path: Path):
        streams, smaller = tmp_path / "streams", tmp_path / "smaller"
        assert remote("encode", folder, "-o", f"{streams}/", "--url", server, "--quiet").stderr == ""
        assert remote("re-encode", streams, "-o", f"{smaller}/", "--url", server, "--quality", "20").returncode == 0
        with Client(server) as client:
            expected = {name: client.re_encode(data, quality=20).data for name, data in outputs(streams).items()}
        assert outputs(smaller) == expected

    def test_effort_is_passed_on(self, folder: Path, server: str):
        path = folder / "0.png"
        assert remote("encode", path, "--url", server, "--quality", "30", "--effort", "1").returncode == 0
        with Client(server) as client:
            assert (folder / "0.bij").read_bytes() == client.encode(path, quality=30, effort=1).data

    def test_one_file_beside_itself(self, folder: Path, server: str):
        path = folder / "0.png"
        assert remote("encode", path, "--url", server).returncode == 0
        assert remote("encode", path, "--url", server, "--keep-suffix").returncode == 0
        assert (folder / "0.bij").read_bytes() == (folder / "0.png.bij").read_bytes()

    def test_one_bad_file_stops_no_other(self, folder: Path, server: str, tmp_path: Path):
        (folder / "bad.png").write_bytes(b"nonsense")
        out = tmp_path / "out"
        done = remote("encode", folder, "-o", f"{out}/", "--url", server)
        assert done.returncode == BAD_INPUT
        assert len(outputs(out)) == 6
        assert done.stderr.count("bad.png: ") == 1
        assert "failed" in done.stderr


def heed_interrupts() -> None:
    """Tests started in the background inherit that SIGINT is ignored; the run they interrupt must not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class TestGoingOn:
    def test_what_is_done_is_not_done_again(self, folder: Path, proxy: Proxy, tmp_path: Path):
        out = tmp_path / "out"
        arguments = ("encode", folder, "-o", f"{out}/", "--url", proxy.url, "--quality", "50")
        assert remote(*arguments).returncode == 0
        first = outputs(out)
        assert proxy.requests == 6
        again = remote(*arguments)
        assert again.returncode == 0
        assert "done before" in again.stderr
        assert proxy.requests == 6
        (out / "0.bij").write_bytes(first["0.bij"][:-5])  # damaged
        (out / "deep" / "1.bij").unlink()  # lost
        (folder / "2.png").write_bytes(picture(99))  # out of date
        assert remote(*arguments).returncode == 0
        assert proxy.requests == 9
        changed = {name for name, data in outputs(out).items() if data != first[name]}
        assert changed == {"2.bij"}

    def test_other_options_overwrite_nothing_unasked(self, folder: Path, server: str, tmp_path: Path):
        out = tmp_path / "out"
        arguments = ("encode", folder / "0.png", "-o", f"{out}/", "--url", server, "--quality")
        assert remote(*arguments, "50").returncode == 0
        first = outputs(out)
        assert remote(*arguments, "20").returncode == USAGE
        assert outputs(out) == first
        assert remote(*arguments, "20", "--force").returncode == 0
        assert outputs(out) != first

    def test_two_hundred_pictures_interrupted_and_resumed(self, server: str, proxy: Proxy, tmp_path: Path):
        proxy.held_after = 60  # the run cannot be over before it is interrupted
        given, out = tmp_path / "in", tmp_path / "out"
        given.mkdir()
        for i in range(200):
            (given / f"{i:03}.png").write_bytes(picture(i, 16))
        arguments = command("encode", given, "-o", f"{out}/", "--url", proxy.url, "--quality", "40", "--jobs", "4")
        run = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_interrupts,  # noqa: PLW1509 - it resets one signal and starts no thread
        )
        deadline = time.monotonic() + 120
        while len(list(out.glob("*.bij"))) < 40:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        time.sleep(0.5)  # the signal is there before more answers are
        proxy.released.set()
        _, said = run.communicate(timeout=60)
        assert run.returncode == INTERRUPTED, said
        assert "Traceback" not in said
        assert "left" in said
        before = {name: (out / name).stat().st_mtime_ns for name in outputs(out)}
        assert 40 <= len(before) < 200
        assert all(name.endswith(".bij") and not name.startswith(".") for name in before)
        resumed = subprocess.run(
            arguments, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False
        )
        assert resumed.returncode == 0, resumed.stderr
        assert len(outputs(out)) == 200
        assert {name: (out / name).stat().st_mtime_ns for name in before} == before
        with Client(server) as client:
            for i in (0, 77, 199):
                expected = client.encode(given / f"{i:03}.png", quality=40).data
                assert (out / f"{i:03}.bij").read_bytes() == expected


class TestFaults:
    def test_all_faults_at_once(self, folder: Path, proxy: Proxy, server: str, tmp_path: Path):
        proxy.faults.extend(["full", "corrupt", "drop", "", "truncate", "gateway", "corrupt"])
        faulty, sound = tmp_path / "faulty", tmp_path / "sound"
        done = remote("encode", folder, "-o", f"{faulty}/", "--url", proxy.url)
        assert done.returncode == 0, done.stderr
        assert "6 tried again" in done.stderr
        assert remote("encode", folder, "-o", f"{sound}/", "--url", server).returncode == 0
        assert outputs(faulty) == outputs(sound)

    @pytest.mark.parametrize("fault", ["full", "corrupt", "drop"])
    def test_a_lasting_fault_ends_the_run(self, folder: Path, proxy: Proxy, tmp_path: Path, fault: str):
        proxy.forever = fault
        out = tmp_path / "out"
        done = remote("encode", folder, "-o", f"{out}/", "--url", proxy.url, "--give-up-s", "1", "--jobs", "1")
        assert done.returncode == SERVICE
        assert "start the same command again" in done.stderr
        assert not out.exists() or outputs(out) == {}

    def test_nobody_there(self, folder: Path):
        url = f"http://127.0.0.1:{free_port()}"
        done = remote("encode", folder / "0.png", "--url", url, "--give-up-s", "0.5")
        assert done.returncode == SERVICE
        assert "no answer from the service" in done.stderr


class TestUsage:
    @pytest.mark.parametrize(
        ("code", "arguments"),
        [
            (USAGE, ["--quality", "0"]),
            (USAGE, ["--lossless", "--quality", "3"]),
            (USAGE, ["--effort", "3"]),
            (USAGE, ["--url", "ftp://x"]),
            (USAGE, ["--api-key-file", "missing"]),
            (LIMITS, ["--max-bytes", "1"]),
            (MODEL, ["--model", "nobody"]),
        ],
    )
    def test_exit_codes(self, folder: Path, server: str, code: int, arguments: list[str]):
        done = here("encode", folder / "0.png", "--url", server, "--quiet", *arguments)
        assert done.exit_code == code, done.stderr
        assert done.stderr.startswith("bijou: ")
        assert done.stderr.count("\n") == 1

    def test_inputs_that_make_no_sense(self, folder: Path, server: str):
        assert here("encode", folder / "missing.png", "--url", server).exit_code == OTHER
        assert here("encode", folder, "-o", folder / "0.png", "--url", server).exit_code == USAGE
        assert here("decode", folder, "--url", server).exit_code == USAGE

    def test_the_key_is_sent(self, folder: Path, server: str, tmp_path: Path):
        key = tmp_path / "key"
        key.write_text("secret\n")
        done = remote("encode", folder / "0.png", "--url", server, "--api-key-file", key)
        assert done.returncode == 0, done.stderr


class TestPlan:
    def test_two_inputs_never_share_an_output(self, tmp_path: Path):
        for name in ("a.png", "a.jpg"):
            (tmp_path / name).write_bytes(b"")
        with pytest.raises(PlanError, match="--keep-suffix"):
            plan([str(tmp_path)], None, "bij", IMAGE_SUFFIXES, keep_suffix=False)
        kept = plan([str(tmp_path)], None, "bij", IMAGE_SUFFIXES, keep_suffix=True)
        assert [task.target.name for task in kept] == ["a.jpg.bij", "a.png.bij"]

    def test_the_same_file_twice_is_one_task(self, tmp_path: Path):
        path = tmp_path / "a.png"
        path.write_bytes(b"")
        assert len(plan([str(path), str(tmp_path)], None, "bij", IMAGE_SUFFIXES, keep_suffix=False)) == 1

    def test_unfinished_and_hidden_files_are_left_alone(self, tmp_path: Path):
        for name in (".hidden.png", "b.PNG"):
            (tmp_path / name).write_bytes(b"")
        tasks = plan([str(tmp_path)], None, "bij", IMAGE_SUFFIXES, keep_suffix=False)
        assert [task.source.name for task in tasks] == ["b.PNG"]


def test_a_journal_cut_short_by_a_crash(tmp_path: Path):
    task = Task(tmp_path / "a.png", tmp_path / "a.bij")
    task.source.write_bytes(b"input")
    task.target.write_bytes(b"output")
    asked = Order("encode", {"quality": 5.0}, force=False, quiet=True).asked
    journal = Journal(tmp_path)
    journal.write(task, asked, hashlib.sha256(b"output").hexdigest())
    assert Journal(tmp_path).holds(task, asked)
    assert not Journal(tmp_path).holds(task, asked + " ")
    file = tmp_path / JOURNAL
    line = file.read_bytes()
    file.write_bytes(line[: len(line) // 2])
    assert not Journal(tmp_path).holds(task, asked)
    Journal(tmp_path).write(task, asked, hashlib.sha256(b"output").hexdigest())  # behind the torn line
    assert Journal(tmp_path).holds(task, asked)
