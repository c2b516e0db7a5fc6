"""The page "Find a leak", played on a real worker: its leak is seen, and its fix ends it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.processes import running, wait_until
from tests.redis_server import running_redis
from tests.view.conftest import TIMEOUT_MS, OpenPage, TakePicture, View
from tests.view.shop import (
    CELERY,
    NODE,
    ROOT,
    TASK,
    copy_of_shop,
    running_shop,
    shop_environ,
)

pytestmark = pytest.mark.browser
expect.set_options(timeout=TIMEOUT_MS)

PAGE = (ROOT / "docs" / "site" / "find-a-leak.md").read_text(encoding="utf-8")
HOLDER = "shop.feeds.SEEN"
IN_A_HURRY = {"WARM_UP": "0", "SITES_INTERVAL": "2"}
SAID_WITHIN_S = 600
"""About a minute on idle cores: what grows must go on for longer than chance explains, and then
a census of 100 runs looks for what holds it."""

Ask = Callable[[], dict[str, Any]]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A copy of the shop."""
    return copy_of_shop(tmp_path / "shop")


def fix(shop: Path) -> None:
    """Change the shop as the page shows it."""
    (diff,) = re.findall(r"^```diff\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for line in diff.splitlines() if line]
    before = "\n".join(line[1:] for line in lines if line[0] in "- ")
    after = "\n".join(line[1:] for line in lines if line[0] in "+ ")
    file = shop / "shop" / "feeds.py"
    text = file.read_text(encoding="utf-8")
    assert text.count(before) == 1
    file.write_text(text.replace(before, after), encoding="utf-8")


@contextmanager
def played(shop: Path, endpoint: str, directory: Path) -> Iterator[Ask]:
    """The worker and its load; gives what asks the worker, as the page does.

    Asking starts a program that takes as long as a second of the load: first wait for the view.
    """
    directory.mkdir()
    with ExitStack() as stack:
        broker = stack.enter_context(running_redis(directory))
        environ = shop_environ(broker, endpoint, IN_A_HURRY)
        stack.enter_context(running_shop(shop, environ, children=2))
        stack.enter_context(running("load", [sys.executable, "load.py"], shop, environ))

        def ask() -> dict[str, Any]:
            command = [*CELERY, "inspect", "memory", "--json", "--timeout=10", f"-d{NODE}"]
            done = subprocess.run(
                command, cwd=shop, env=environ, capture_output=True, text=True, check=False
            )
            answer = json.loads(done.stdout)[NODE] if done.returncode == 0 else {}
            return answer if "ok" in answer else {}

        yield ask


def runs_shown(view: View) -> float:
    """How often the task has run in all workers that the view knows."""
    return sum(
        float(task["runs"])
        for worker in view.snapshot()["workers"]
        for task in worker["tasks"]
        if task["name"] == TASK
    )


def test_the_tutorials_leak_is_seen_with_its_line_and_holder_and_its_fix_ends_it(
    shop: Path, view: View, open_page: OpenPage, tmp_path: Path, take_picture: TakePicture
) -> None:
    shown = [f"{TASK} may leak", f"held by {HOLDER}", "at shop/feeds.py:13 in download"]
    assert all(each in PAGE for each in shown)
    said = re.compile(f"{TASK} (may leak|leaks) .*{re.escape(shown[1])}.*{re.escape(shown[2])}")

    with played(shop, view.endpoint, tmp_path / "leaky") as ask:

        def has_said() -> dict[str, Any]:
            answer = ask()
            return answer if answer and said.search(answer["ok"]) else {}

        def is_shown() -> bool:
            verdicts = view.snapshot()["verdicts"]
            return any((each["task"], each["holder"]) == (TASK, HOLDER) for each in verdicts)

        wait_until("the view has the verdict", is_shown, SAID_WITHIN_S)
        leaky = wait_until("the worker says what leaks", has_said, SAID_WITHIN_S)
        page = open_page(view.url, width=1120)
        card = page.locator(".verdict")
        for words in (TASK, HOLDER, "shop/feeds.py:13 in download"):
            expect(card).to_contain_text(words)
        expect(card.locator(".here")).to_contain_text('return "\\n".join(')
        take_picture(page, "view", "#processes")
    # The innocent task is not in it.
    assert "shop.mail.send may leak" not in leaky["ok"]
    assert "shop.mail.send leaks" not in leaky["ok"]

    until_now = runs_shown(view)
    fix(shop)
    with played(shop, view.endpoint, tmp_path / "fixed") as ask:
        wait_until(
            "it has run as often again", lambda: runs_shown(view) >= 2 * until_now, SAID_WITHIN_S
        )
        fixed = wait_until("the worker answers", ask, SAID_WITHIN_S)
    assert f"{TASK} may leak" not in fixed["ok"]
    assert f"{TASK} leaks" not in fixed["ok"]
