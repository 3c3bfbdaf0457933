"""The page's files: what is served, with which headers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service import page, problems


@pytest.fixture(scope="module")
def site() -> Iterator[TestClient]:
    app = FastAPI()
    page.mount(app)
    problems.install(app)
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("path", ["/", *(f"/web/{name}" for name in page.load())])
def test_every_file_comes_with_its_type_and_policy(site: TestClient, path: str):
    answer = site.get(path)
    assert answer.status_code == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["content-type"].split(";")[0] in {
        "text/html",
        "text/css",
        "text/javascript",
        "image/svg+xml",
        "image/png",
    }
    assert site.head(path).headers["content-length"] == str(len(answer.content))
    again = site.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/web/", "/web/missing.js", "/web/../page.py", "/web/%2e%2e/page.py", "/web//etc/passwd"]
)
def test_nothing_else_is_served(site: TestClient, path: str):
    answer = site.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_page_names_no_other_host_and_no_inline_code():
    for name, asset in page.load().items():
        if asset.media_type != "image/png":
            text = asset.body.decode().replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?://|//\w+\.\w+/", text), name
    html = page.load()[page.INDEX].body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", html)


def test_what_the_page_asks_for_is_there():
    assets = page.load()
    for name, asset in assets.items():
        if name.endswith((".html", ".js")):
            text = asset.body.decode()
            for wanted in re.findall(r'(?:href|src)="web/([\w./]+)"', text) + re.findall(r'from "\./([\w.]+)"', text):
                assert wanted in assets, f"{name} asks for {wanted}"
