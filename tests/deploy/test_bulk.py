"""The bulk job on a local Ray: killed half-way and started again, nothing is lost and nothing is done twice."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ray", reason="Ray is not installed (extra: bulk)")
pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra: bulk)")

from service import codec, operations
from service.bulk.manifest import FileFacts, FileRecord, Manifest, OtherJobError
from service.bulk.places import Place
from service.operations import Codec
from service.schemas import EncodeOptions
from tests.deploy.processes import ROOT, wait_until
from tests.pages import commands

PICTURES = 200
BEFORE_KILL = 40


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "service.bulk", *arguments, "--workers", "1", "--quiet"]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("BIJOU_")} | {
        "BIJOU_DEVICE": "cpu"
    }


def bulk(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )


def lines(manifest: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of a kind; a last one that is still being written is left out."""
    texts = manifest.read_text().split("\n")[:-1] if manifest.exists() else []
    return [line for line in map(json.loads, filter(None, texts)) if line["kind"] == kind]


def pictures(folder: Path, number: int) -> Path:
    random = np.random.default_rng(5)
    for index in range(number):
        path = folder / f"{index % 4}" / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 255, (3, 4, 3), dtype=np.uint8))
        coarse.resize((16 + index % 5, 16 + index % 3), Image.Resampling.BICUBIC).save(path)
    return folder


@pytest.mark.slow
def test_the_local_commands_of_deployment_work_one_after_the_other(tmp_path: Path):
    pictures(tmp_path / "photos", 2)
    (tmp_path / "service").symlink_to(ROOT / "service")
    local = [line for line in commands("docs/deployment.md", "-m service.bulk") if "s3://" not in line]
    assert [line.split()[3] for line in local] == ["encode", "re-encode", "decode"]
    for line in local:
        done = subprocess.run(
            [sys.executable, *line.split()[1:], "--workers", "1", "--quiet"],
            cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert [len(list((tmp_path / folder).rglob("*.*"))) for folder in ("archive", "smaller", "out")] == [3, 3, 3]
    assert {path.suffix for path in (tmp_path / "out").rglob("*.*")} == {".webp", ".jsonl"}


@pytest.mark.slow
def test_a_killed_job_goes_on_and_every_file_is_made_once(tmp_path: Path, models: codec.ModelSet):
    source, target = pictures(tmp_path / "in", PICTURES), tmp_path / "out"
    manifest = target / "bijou-bulk.jsonl"
    with subprocess.Popen(
        command("encode", str(source), str(target), "--quality", "50"),
        cwd=ROOT,
        env=environment(),
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    ) as job:
        wait_until(lambda: len(lines(manifest, "file")) >= BEFORE_KILL, f"{BEFORE_KILL} files are done", 240)
        os.killpg(job.pid, signal.SIGKILL)
    first = {path: path.stat().st_mtime_ns for path in target.rglob("*.bij")}
    assert BEFORE_KILL <= len(first) < PICTURES
    assert lines(manifest, "totals") == []

    resumed = bulk("encode", str(source), str(target), "--quality", "50")
    assert resumed.returncode == 0, resumed.stderr
    records = lines(manifest, "file")
    assert set(Counter(record["input"] for record in records).values()) == {1}
    assert {record["status"] for record in records} <= {"done", "found"}
    assert {path: path.stat().st_mtime_ns for path in first} == first, "an output was written twice"
    tools = Codec(models, codec.Limits())
    for record in records:
        data = (target / record["output"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == record["sha256"]
        picture = (source / record["input"]).read_bytes()
        assert data == operations.encode(picture, EncodeOptions(quality=50), tools).body
    [totals] = lines(manifest, "totals")
    assert (totals["files"], totals["failed"]) == (PICTURES, 0)
    assert totals["output_bytes"] == sum(path.stat().st_size for path in target.rglob("*.bij"))

    again = bulk("encode", str(source), str(target), "--quality", "50")
    assert again.returncode == 0
    assert len(lines(manifest, "file")) == PICTURES, "a finished job does nothing"
    other = bulk("encode", str(source), str(target), "--quality", "60")
    assert other.returncode == 2
    assert "another job" in other.stderr


@pytest.mark.slow
def test_decoding_re_encoding_and_a_bad_file(tmp_path: Path, png: bytes, pixels: np.ndarray, models: codec.ModelSet):
    tools = Codec(models, codec.Limits())
    source = tmp_path / "streams"
    source.mkdir()
    (source / "good.bij").write_bytes(operations.encode(png, EncodeOptions(quality=100), tools).body)
    (source / "bad.bij").write_bytes(b"not a stream")
    decoded = bulk("decode", source.as_uri(), str(tmp_path / "images"), "--format", "webp")
    assert decoded.returncode == 3, decoded.stderr
    assert np.array_equal(np.asarray(Image.open(io.BytesIO((tmp_path / "images/good.webp").read_bytes()))), pixels)
    assert not (tmp_path / "images/bad.webp").exists()
    [failed] = [line for line in lines(tmp_path / "images/bijou-bulk.jsonl", "file") if line["status"] == "failed"]
    assert failed["error"]
    (source / "bad.bij").unlink()
    smaller = bulk("re-encode", str(source), str(tmp_path / "smaller"), "--quality", "40")
    assert smaller.returncode == 0, smaller.stderr
    stream = (tmp_path / "smaller/good.bij").read_bytes()
    assert codec.inspect(stream).quality == 40


def test_a_manifest_cut_short_by_a_crash_is_read_and_continued(tmp_path: Path):
    path, job = tmp_path / "m.jsonl", {"op": "encode"}
    record = FileRecord("a.png", "a.bij", "done", input_bytes=5, input_changed_ns=7, output_bytes=3)
    with Manifest(path, job) as manifest:
        manifest.add(record)
    with path.open("ab") as file:
        file.write(b'{"kind": "file", "input": "b.p')
    with Manifest(path, job) as manifest:
        assert manifest.records == {"a.png": record}
        assert manifest.holds("a.png", FileFacts(5, 7), FileFacts(3, 0))
        manifest.add(FileRecord("b.png", "b.bij", "failed", 1, 1))
    with Manifest(path, job) as manifest:
        assert set(manifest.records) == {"a.png", "b.png"}
        assert not manifest.holds("b.png", FileFacts(1, 1), FileFacts(0, 0)), "failures are tried again"
    with pytest.raises(OtherJobError, match="another job"):
        Manifest(path, {"op": "decode"})


@pytest.mark.parametrize(
    ("source", "output"),
    [
        pytest.param(FileFacts(6, 7), FileFacts(3, 0), id="the input has another size"),
        pytest.param(FileFacts(5, 8), FileFacts(3, 0), id="the input was changed"),
        pytest.param(FileFacts(5, 7), FileFacts(2, 0), id="the output has another size"),
        pytest.param(FileFacts(5, 7), None, id="the output is gone"),
    ],
)
def test_what_is_not_as_recorded_is_done_again(tmp_path: Path, source: FileFacts, output: FileFacts | None):
    with Manifest(tmp_path / "m.jsonl", {}) as manifest:
        manifest.add(FileRecord("a.png", "a.bij", "done", input_bytes=5, input_changed_ns=7, output_bytes=3))
        assert not manifest.holds("a.png", source, output)


def test_an_output_without_a_record_counts_only_if_this_job_made_it(tmp_path: Path):
    with Manifest(tmp_path / "m.jsonl", {}) as manifest:
        begun_ns = manifest.begun_ns
        assert manifest.made(FileFacts(1, begun_ns - 10), FileFacts(1, begun_ns + 10))
        assert not manifest.made(FileFacts(1, begun_ns - 10), FileFacts(1, begun_ns - 5))
        assert not manifest.made(FileFacts(1, begun_ns + 20), FileFacts(1, begun_ns + 10))
        assert not manifest.made(FileFacts(1, 0), None)


def test_places_list_read_and_write_whole_files(tmp_path: Path):
    for name in (str(tmp_path / "a"), (tmp_path / "b").as_uri()):
        place = Place(name)
        assert place.list() == {}
        place.write("deep/er/file.bij", b"first")
        place.write("deep/er/file.bij", b"second one")
        place.write(".hidden/file.bij", b"not listed")
        assert {name: facts.size_bytes for name, facts in place.list().items()} == {"deep/er/file.bij": 10}
        assert place.read("deep/er/file.bij") == b"second one"
        with pytest.raises(FileNotFoundError):
            place.read("none")


def test_other_stores_are_fsspecs():
    place = Place("memory://bucket/prefix")
    place.write("sub/a.bij", b"abc")
    assert {name: facts.size_bytes for name, facts in place.list().items()} == {"sub/a.bij": 3}
    assert place.read("sub/a.bij") == b"abc"
    assert not place.is_local
