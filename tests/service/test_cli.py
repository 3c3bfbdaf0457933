"""The command line: files, pipes, exit codes, and never a traceback."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from service import __version__, cli, cli_remote, codec
from service.bulk import cli as bulk_cli
from service.cli_options import options_of
from service.schemas import TargetOptions

ENCODING = [(*group, op) for group in ((), ("remote",), ("bulk",)) for op in ("encode", "re-encode")]
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("BIJOU_")},
    "BIJOU_DEVICE": "cpu",
    "BIJOU_DEVICE_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
}


def bijou(
    *arguments: str | Path, given: bytes = b"", folder: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "service", *map(str, arguments)]
    done = subprocess.run(
        command,
        input=given,
        capture_output=True,
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        timeout=120,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


def assert_refused(done: subprocess.CompletedProcess[bytes], code: int) -> None:
    assert done.returncode == code, done.stderr.decode()
    assert done.stdout == b""
    assert done.stderr.startswith(b"bijou: ")
    assert done.stderr.count(b"\n") == 1


@pytest.fixture
def photo(tmp_path: Path, png: bytes) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(png)
    return path


@pytest.mark.usefixtures("models")
class TestFiles:
    def test_round_trip_beside_the_input(self, photo: Path, pixels: np.ndarray):
        encoded = bijou("encode", photo, "--lossless")
        assert encoded.returncode == 0, encoded.stderr.decode()
        assert b"lossless" in encoded.stderr
        photo.unlink()
        assert bijou("decode", photo.with_suffix(".bij"), "--quiet").stderr == b""
        assert np.array_equal(np.asarray(Image.open(photo)), pixels)

    def test_pipes(self, png: bytes, pixels: np.ndarray):
        encoded = bijou("encode", "-", "--quality", "100", given=png)
        decoded = bijou("decode", "-", "--format", "webp", given=encoded.stdout)
        image = Image.open(io.BytesIO(decoded.stdout))
        assert image.format == "WEBP"
        assert np.array_equal(np.asarray(image), pixels)

    def test_several_files_into_a_folder(self, photo: Path, png: bytes, tmp_path: Path):
        second, broken = tmp_path / "second.png", tmp_path / "broken.png"
        second.write_bytes(png)
        broken.write_bytes(png[:99])
        out = tmp_path / "out"
        done = bijou("encode", photo, broken, second, "-o", f"{out}/")
        assert done.returncode == 3
        assert sorted(p.name for p in out.iterdir()) == ["photo.bij", "second.bij"]
        assert done.stderr.count(b"broken.png: ") == 1

    def test_output_name_chooses_the_format(self, photo: Path, tmp_path: Path):
        bijou("encode", photo)
        target = tmp_path / "small.jpg"
        assert bijou("decode", photo.with_suffix(".bij"), "-o", target, "--scale", "4").returncode == 0
        with Image.open(target) as image:
            assert (image.format, image.size) == ("JPEG", (16, 12))

    def test_the_first_part_of_a_stream(self, png: bytes):
        stream = bijou("encode", "-", given=png).stdout
        sections = json.loads(bijou("inspect", "-", given=stream).stdout)["sections"]
        end = next(s["offset"] + s["length"] for s in sections if s["scale"] == 4)
        assert_refused(bijou("decode", "-", given=stream[:end]), 3)
        prefix = bijou("decode", "-", "--prefix", given=stream[:end])
        assert prefix.returncode == 0, prefix.stderr.decode()
        assert max(Image.open(io.BytesIO(prefix.stdout)).size) < 61

    def test_re_encode(self, png: bytes):
        stream = bijou("encode", "-", "--stable", given=png).stdout
        assert bijou("re-encode", "-", given=stream).stdout == stream
        assert len(bijou("re-encode", "-", "--quality", "20", given=stream).stdout) < len(stream)

    def test_effort_is_that_of_the_codec(self, png: bytes, models: codec.ModelSet):
        picture, target = codec.read_image(png, codec.Limits()), codec.Target(quality=30)
        stream = bijou("encode", "-", "--quality", "30", "--effort", "1", given=png).stdout
        assert stream == codec.encode(picture, models.default, target, effort=1).stream
        assert bijou("re-encode", "-", "--effort", "1", given=stream).stdout == stream

    def test_inspect_writes_a_line_a_file(self, photo: Path):
        bijou("encode", photo, "--quality", "60")
        stream = photo.with_suffix(".bij")
        lines = bijou("inspect", stream, stream).stdout.splitlines()
        assert [json.loads(line)["quality"] for line in lines] == [60, 60]

    def test_nothing_is_overwritten_unasked(self, photo: Path):
        assert bijou("encode", photo).returncode == 0
        assert_refused(bijou("encode", photo), 2)
        assert bijou("encode", photo, "--force").returncode == 0

    def test_exit_codes(self, photo: Path, png: bytes):
        assert_refused(bijou("encode", photo.with_name("missing.png")), 1)
        assert_refused(bijou("encode", "-", "--quality", "0", given=png), 2)
        assert_refused(bijou("encode", "-", "--quality", "50.3", given=png), 2)
        assert_refused(bijou("encode", "-", "--effort", "3", given=png), 2)
        assert_refused(bijou("encode", "-", "--lossless", "--quality", "5", given=png), 2)
        assert_refused(bijou("decode", "-", given=png), 3)
        assert_refused(bijou("encode", "-", "--max-bytes", "1", given=png), 4)
        assert_refused(bijou("encode", "-", given=png, BIJOU_MAX_PIXELS="10"), 4)
        assert_refused(bijou("encode", "-", "--model", "nobody", given=png), 5)


@pytest.mark.parametrize("words", ENCODING, ids=" ".join)
class TestEffort:
    def test_every_encoding_command_takes_it(self, words: Sequence[str], monkeypatch: pytest.MonkeyPatch):
        taken: list[TargetOptions] = []

        def note(cls: type[TargetOptions], values: dict[str, object]) -> None:
            taken.append(options_of(cls, values))
            raise typer.Exit

        for module in (cli, cli_remote, bulk_cli):
            monkeypatch.setattr(module, "options_of", note)
        for flags in ([], ["--effort", "2"]):
            assert CliRunner().invoke(cli.app, [*words, "in", "out", *flags]).exit_code == 0
        assert [options.effort for options in taken] == [0, 2]

    @pytest.mark.parametrize("value", ["3", "-1", "1.5"])
    def test_what_is_none_is_a_usage_error(self, words: Sequence[str], value: str):
        done = CliRunner().invoke(cli.app, [*words, "in", "out", "--effort", value])
        assert done.exit_code == 2
        assert "effort" in done.stderr


def test_version_and_usage():
    assert bijou("version").stdout.decode() == f"bijou {__version__}\n"
    assert bijou("encode").returncode == 2
    assert bijou("no-such-command").returncode == 2
    assert_refused(bijou("inspect", "-", given=b"x", BIJOU_NONSENSE="1"), 2)
    assert_refused(bijou("inspect", "-", given=b"not a stream"), 3)


@pytest.mark.skipif("CUDAExecutionProvider" in __import__("onnxruntime").get_available_providers(), reason="has CUDA")
@pytest.mark.usefixtures("models")
def test_a_device_that_is_not_there_stops_the_start():
    done = bijou("serve", BIJOU_DEVICE="cuda")
    assert done.returncode == 5
    assert done.stderr.count(b"\n") == 1


def test_health_without_a_server():
    assert_refused(bijou("health", "--url", "http://127.0.0.1:9/healthz/ready"), 1)
    assert_refused(bijou("health", "--url", "file:///etc/hostname"), 2)


def test_serve_answers_and_drains_on_sigterm(models: codec.ModelSet, free_port: int):
    environment = {**ENVIRONMENT, "BIJOU_PORT": str(free_port), "BIJOU_LOG_FORMAT": "json"}
    server = subprocess.Popen(
        [sys.executable, "-m", "service", "serve"], cwd=ROOT, env=environment, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 60
        while bijou("health", BIJOU_PORT=str(free_port)).returncode:
            assert server.poll() is None
            assert time.monotonic() < deadline
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=30)
    finally:
        server.kill()
    assert server.returncode == 0, log.decode()
    ready = next(e for e in map(json.loads, log.splitlines()) if e["event"] == "ready")
    assert ready["models"] == [m.id for m in models]
