"""Samples, figures, tutorial and the code of how-it-works.md and faq.md: everything a reader may run is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples import make_figures, make_samples
from service import codec
from tests.live_server import ROOT, environment, free_port, live_server
from tests.pages import blocks, commands


@pytest.mark.parametrize("name", make_samples.SAMPLES)
def test_the_samples_of_the_page_are_what_the_script_makes(name: str):
    with Image.open(make_samples.FOLDER / f"{name}.png") as image:
        assert image.size == (make_samples.WIDTH, make_samples.HEIGHT)
        difference = np.abs(np.asarray(image, np.int16) - np.asarray(make_samples.SAMPLES[name](), np.int16))
    # Another Pillow may scale or draw letters a little differently.
    assert difference.mean() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", make_figures.FIGURES)
def test_every_figure_can_be_drawn(name: str, models: codec.ModelSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(make_figures, "GENERATIONS", 2)
    make_figures.FIGURES[name](models).savefig(tmp_path / "figure.png")
    assert (make_figures.FOLDER / f"{name}.png").is_file()
    with Image.open(tmp_path / "figure.png") as image:
        assert np.asarray(image.convert("L")).std() > 5


def test_the_code_of_how_it_works_runs_from_top_to_bottom(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    found = blocks("docs/how-it-works.md", "python")
    assert len(found) >= 5
    exec(compile("\n".join(found), "how-it-works.md", "exec"), {})


def test_the_code_of_the_answers_runs(tmp_path: Path):
    (tmp_path / "service").symlink_to(ROOT / "service")
    with live_server() as url:
        for block in blocks("docs/faq.md", "python"):
            code = block.replace("http://127.0.0.1:8000", url)
            done = subprocess.run(
                [sys.executable, "-c", code],
                check=False,
                cwd=tmp_path,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, done.stderr
        photos = tmp_path / "photos"
        photos.mkdir()
        (photos / "petals.png").write_bytes((make_samples.FOLDER / "petals.png").read_bytes())
        [command] = commands("docs/faq.md", "bijou")
        arguments = [sys.executable, "-m", "service", *command.split()[1:], "--url", url]
        subprocess.run(arguments, cwd=tmp_path, env=environment(), check=True, timeout=120, capture_output=True)
    assert (tmp_path / "streams" / "petals.bij").is_file()


@pytest.mark.slow
def test_the_load_test_of_operations_runs():
    [command] = commands("docs/operations.md", "tests.bench.load")
    program, *arguments = command.replace("--seconds 60", "--seconds 3").split()
    assert program == ".venv/bin/python"
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr  # 1: a criterion was missed, as on a busy machine
    assert "every request is answered, with 200 or 503: yes" in done.stdout


@pytest.mark.slow
def test_the_tutorial_trains_exports_serves_and_measures(tmp_path: Path):
    settings = {"STEPS": "6", "PORT": str(free_port()), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "examples/tutorial.sh", tmp_path],
        cwd=ROOT,
        env={**environment(), **settings},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"q(\d+) .*?(hills|chart|petals) .*?([\d.]+) .*?(inf|[\d.]+)", done.stdout)
    assert len(rows) == 9
    assert all(db == "inf" for quality, _, _, db in rows if quality == "100")
    assert all(15 < float(db) < 80 for quality, _, _, db in rows if quality != "100")
    assert os.access(tmp_path / "models" / "default", os.R_OK)
