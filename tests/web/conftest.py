"""The page in a real Chromium, on a real server; whatever the console says is kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.live_server import live_server

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass
class Watched:
    """A page and what went on behind it.

    Attributes:
        page: The page, opened.
        complaints: Errors of the console and uncaught exceptions; a test that provokes one clears them.
        requests: Every address that was asked for.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a server with the default settings."""
    with live_server() as url:
        yield url


# Not for the whole session: while it runs, no other test could use an event loop of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium of the system's."""
    if CHROMIUM is None:
        pytest.skip("no Chromium was found; install one, for example with: apt-get install chromium")
    # Chromium refuses to run its sandbox as root, which is what containers of continuous integration are.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@pytest.fixture
def watched(browser: Browser, server: str) -> Iterator[Watched]:
    """The page, opened; at the end its console must have been silent and every request have stayed at home."""
    context = browser.new_context(accept_downloads=True, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)
    seen = Watched(context.new_page())
    seen.page.on("console", lambda m: seen.complaints.append(m.text) if m.type in ("error", "warning") else None)
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    seen.page.goto(server)
    yield seen
    context.close()
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith((server, f"blob:{server}"))] == []
