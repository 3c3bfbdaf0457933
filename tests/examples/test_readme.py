"""README.md and the other pages: commands run as pasted, links lead somewhere, and the tree names every module."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from examples import make_samples
from tests.live_server import ROOT, environment, live_server
from tests.pages import blocks

README = (ROOT / "README.md").read_text("utf-8")
PAGES = ("README.md", "CHANGELOG.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
ADDRESS = "http://127.0.0.1:8000"
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[\w-]+)?\)")
MODULE = re.compile(r"python -m ((?:service|model_export|examples|tests)[\w.]*)")
MAKE = re.compile(r"(?:^|`)make ([a-z-]+)", re.MULTILINE)
NOT_RUN = ("make ",)
"""They install a virtual environment, or serve for ever: what they name is checked instead."""


def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.skipif(shutil.which("curl") is None, reason="the commands need curl")
def test_every_command_of_the_readme_works_in_the_order_it_stands_there(tmp_path: Path):
    with Image.open(make_samples.FOLDER / "petals.png") as image:
        image.crop((80, 80, 144, 144)).save(tmp_path / "photo.png")
    (tmp_path / "service").symlink_to(ROOT / "service")
    scripts = [block for block in blocks("README.md", "sh") if not block.startswith(NOT_RUN)]
    assert len(scripts) == 2
    with live_server() as url:
        for block in scripts:
            script = "set -euo pipefail\n" + block.replace(ADDRESS, url).replace(".venv/bin/python", sys.executable)
            run(["bash", "-c", script], tmp_path)
    for block in blocks("README.md", "python"):
        run([sys.executable, "-c", block], tmp_path)
    with Image.open(tmp_path / "decoded.png") as decoded, Image.open(tmp_path / "small.png") as small:
        assert (decoded.size, small.size) == ((64, 64), (16, 16))
    made = ("photo.bij", "web.bij", "archive/photo.bij", "smaller.bij", "same.png")
    assert [name for name in made if not (tmp_path / name).stat().st_size] == []


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    for target, anchor in LINK.findall(text_of(page)):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor[1:] in anchors(path), target + anchor


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_parse_and_name_what_exists(page: str):
    text = text_of(page)
    for block in blocks(page, "sh"):
        subprocess.run(["bash", "-n", "-c", block], check=True)
    for block in blocks(page, "python"):
        compile(block, page, "exec")
    for module in MODULE.findall(text):
        assert importlib.util.find_spec(module.rstrip(".")) is not None, module
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(MAKE.findall(text)) <= targets


@pytest.mark.parametrize("folder", ["service", "service/codec", "service/client", "service/bulk", "model_export"])
def test_the_tree_of_the_readme_names_every_module(folder: str):
    (tree,) = blocks("README.md", "")
    named = set(re.findall(r"\w+", tree))
    modules = {path.stem for path in (ROOT / folder).glob("*.py") if not path.stem.startswith("__")}
    assert modules
    assert modules - named == set()


@pytest.mark.parametrize("folder", ["tests", "docker", "docs", "."])
def test_the_readme_names_every_folder(folder: str):
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [Path(line).relative_to(folder) for line in listed.stdout.split()]
    names = {path.parts[0] for path in paths if len(path.parts) > 1 and not path.parts[0].startswith(".")}
    assert names
    assert {name for name in names if not re.search(rf"\b{name}\b", README)} == set()


def test_the_readme_links_every_page():
    pages = {target for target, _ in LINK.findall(README) if target.endswith(".md")}
    assert pages >= {page for page in PAGES if page != "README.md"}
