"""The built documentation in a real browser; `make docs-site` builds it."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Request

SITE = Path(__file__).resolve().parents[2] / "site"

pytestmark = pytest.mark.browser


def test_no_page_of_the_documentation_asks_for_anything_but_its_own_files(
    browser: Browser,
) -> None:
    pages = sorted(SITE.rglob("*.html"))
    assert len(pages) > 30, "make docs-site builds them"
    asked: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith((SITE.as_uri(), "data:", "blob:")):
            asked.append(request.url)

    context = browser.new_context()
    page = context.new_page()
    page.on("request", note)
    missing: list[str] = []
    page.on("requestfailed", lambda request: _note_missing(request, missing))
    for each in pages:
        # Its 404.html has addresses from the root of a server.
        if each.name != "404.html":
            page.goto(each.as_uri(), wait_until="load")
            assert page.locator("h1").count() == 1
    context.close()
    assert asked == []
    assert missing == []


def _note_missing(request: Request, missing: list[str]) -> None:
    # The picture of a tab may still be asked for when the next page is opened.
    if request.failure != "net::ERR_ABORTED":
        missing.append(f"{request.url}: {request.failure}")
