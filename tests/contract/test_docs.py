"""docs/api.md against the service: nothing is missing from it, and its examples work as they stand."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service import codec
from service.problems import OTHERS, TABLE
from service.responses import RE_ENCODE_HEADERS, RESULT_HEADERS, STREAM_HEADERS
from tests.pages import blocks
from tests.service.wire import Live, get, listen

DOCS = Path(__file__).resolve().parents[2] / "docs"
API = (DOCS / "api.md").read_text()
OPERATIONS = (DOCS / "operations.md").read_text()
KEY = "a-key-for-the-examples"
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def live(models: codec.ModelSet) -> Iterator[Live]:
    with listen(models) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, png: bytes, models: codec.ModelSet) -> Path:
    picture = codec.read_image(png, codec.Limits())
    (tmp_path / "photo.png").write_bytes(png)
    (tmp_path / "photo.bij").write_bytes(codec.encode(picture, models.default).stream)
    return tmp_path


def test_every_problem_is_listed_with_its_status():
    listed = set(re.findall(r"^\| (\d{3}) \| `([a-z-]+)` \|", API, re.MULTILINE))
    assert listed == {(str(int(status)), slug) for status, slug, _ in (*TABLE.values(), *OTHERS)}


def test_every_route_option_and_header_is_named(live: Live):
    paths: dict[str, Any] = json.loads(live.send(get("/openapi.json")).body)["paths"]
    for path, methods in paths.items():
        if path.startswith("/v1"):
            continue
        assert path in API
        for method in methods.values():
            assert all(f"| `{option['name']}` |" in API for option in method.get("parameters", []))
    for header in (*RESULT_HEADERS, *STREAM_HEADERS, *RE_ENCODE_HEADERS):
        assert f"`{header}`" in API


def test_every_metric_is_explained(live: Live):
    names = re.findall(r"^# TYPE bijou_(\w+) ", live.service.metrics.text().decode(), re.MULTILINE)
    assert len(names) > 20
    assert not [name for name in names if f"`{name}" not in OPERATIONS and not name.endswith("_created")]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples need curl")
@pytest.mark.parametrize("block", blocks("docs/api.md", "sh"), ids=lambda block: block.split("'")[0][-40:].strip())
def test_the_shell_examples_work(live: Live, folder: Path, block: str):
    script = "set -euo pipefail\n" + block.replace(ADDRESS, f"http://127.0.0.1:{live.port}")
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "KEY": KEY}
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode(errors="replace")


def test_the_python_examples_work(live: Live, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """All on one page, in order: later ones use the client of the first."""
    monkeypatch.chdir(folder)
    first, *rest = blocks("docs/api.md", "python")
    names: dict[str, Any] = {}
    source = first.replace(ADDRESS, f"http://127.0.0.1:{live.port}")
    exec(source, names)
    with names["httpx2"].Client(base_url=f"http://127.0.0.1:{live.port}/v1", timeout=60) as client:
        names["client"] = client
        for block in rest:
            exec(block, names)
    assert names["image"].headers["content-type"] == "image/jpeg"
    assert names["changed"] is True
    assert names["ready"] is True
