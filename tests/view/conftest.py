"""A browser, and views for it to look at."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, FloatRect, Page, sync_playwright

from tests.processes import LOOPBACK, ComponentError, Server, answers, free_ports, get, running

TIMEOUT_MS = 180_000
"""For what is to be seen: with many tests on a busy machine a second may last twenty."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the pictures be kept."""
    parser.addoption(
        "--save-screenshots", type=Path, metavar="DIR", help="keep the pictures of the page there"
    )
    parser.addoption(
        "--write-picture", action="store_true", help="write the documentation's picture anew"
    )


@dataclass(frozen=True)
class View:
    """A running `otel-celery-memory view`."""

    url: str
    endpoint: str
    """Where workers send."""
    server: Server

    def snapshot(self) -> dict[str, Any]:
        """What the page is given now."""
        found: dict[str, Any] = json.loads(get(f"{self.url}snapshot.json"))
        return found


PICTURES = Path(__file__).resolve().parents[2] / "docs" / "site" / "images"
PICTURE_MAX_BYTES = 150_000
"""Pictures stay in the repository's history."""
TakePicture = Callable[[Page, str, str], None]
"""Takes the documentation's picture of that name, down to an element."""
OpenPage = Callable[..., Page]
"""Opens an address in a new window; takes its width and colour scheme."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    program = shutil.which("chromium")
    if program is None:
        raise ComponentError("chromium is not on PATH; it comes with the package chromium")
    with sync_playwright() as playwright:
        # As root Chromium has no sandbox; what it opens here is ours.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        launched = playwright.chromium.launch(executable_path=program, args=arguments)
        yield launched
        launched.close()


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    """A view that nothing was sent to."""
    page, otlp = free_ports(2)
    command = [*(sys.executable, "-m", "otel_celery_memory.cli", "view")]
    command += ["--port", str(page), "--otlp-port", str(otlp)]
    with running("view", command, tmp_path) as server:
        url = f"http://{LOOPBACK}:{page}/"
        server.wait_ready(lambda: answers(url))
        yield View(url, f"http://{LOOPBACK}:{otlp}", server)


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens pages. At the end nothing was refused by the policy, and no script had failed."""
    problems: list[str] = []
    opened: list[Page] = []

    def open_one(
        url: str, *, width: int = 1280, colours: str = "light", offline: bool = False
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if colours == "dark" else "light",
            offline=offline,
        )
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        opened.append(page)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        page.on(
            "console",
            lambda message: (
                problems.append(message.text)
                # A connection that ended is shown on the page.
                if message.type == "error" and "net::ERR_" not in message.text
                else None
            ),
        )
        page.goto(url)
        page.wait_for_selector("h1")
        return page

    yield open_one
    for page in opened:
        page.context.close()
    assert problems == []


@pytest.fixture
def screenshot(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Page, str], None]:
    """Takes a picture of the whole page, and keeps it where that was asked for."""
    directory: Path = request.config.getoption("--save-screenshots") or tmp_path
    return partial(_take, directory)


def _take(directory: Path, page: Page, name: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    page.evaluate("document.fonts.ready")
    page.screenshot(path=directory / f"{name}.png", full_page=True)


@pytest.fixture
def take_picture(request: pytest.FixtureRequest, tmp_path: Path) -> TakePicture:
    """Takes the documentation's picture: the page as far as an element. See `--write-picture`."""
    wanted = request.config.getoption("--write-picture")

    def take(page: Page, name: str, down_to: str) -> None:
        path = (PICTURES if wanted else tmp_path) / f"{name}.png"
        page.evaluate("document.fonts.ready")
        below = page.locator(down_to).bounding_box()
        width = page.evaluate("innerWidth")
        assert below is not None
        clip: FloatRect = {"x": 0, "y": 0, "width": width, "height": below["y"] - 8}
        # Where the file is on this machine concerns nobody.
        for caption in page.locator("figcaption").all():
            caption.evaluate("element => { element.style.visibility = 'hidden' }")
        page.screenshot(path=path, clip=clip, full_page=True)
        assert path.stat().st_size < PICTURE_MAX_BYTES or not wanted

    return take


@contextmanager
def _demo(directory: Path, endpoint: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "demo", "--endpoint", endpoint, "--seconds", "15"]
    root = Path(__file__).resolve().parents[2]
    environ = {**os.environ, "TMPDIR": str(directory), "PYTHONPATH": str(root)}
    with running("demo", command, directory, environ) as server:
        yield server


@pytest.fixture
def demo(tmp_path: Path) -> Callable[[str], AbstractContextManager[Server]]:
    """Runs the demo's worker, which leaks, and has it send to an endpoint."""
    return partial(_demo, tmp_path)
