"""A capture in a browser: begun by the button in a real worker, shown, compared, and saved."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import count, islice
from pathlib import Path

import pytest
from celery import Celery
from playwright.sync_api import Page, expect

from otel_celery_memory import conventions as c
from otel_celery_memory.captures.directory import CaptureDirectory
from tests.processes import LOOPBACK, answers, free_ports, running
from tests.redis_server import running_redis
from tests.unit.captures.examples import CAPTURE, LEAK
from tests.view.conftest import TIMEOUT_MS, OpenPage, View
from tests.view.sending import MadeUpWorker
from tests.view.shop import NODE, TASK, copy_of_shop, running_shop, shop_environ
from tests.view.test_page import HOSTILE, WIDTHS, fits

pytestmark = pytest.mark.browser
expect.set_options(timeout=TIMEOUT_MS)

LINE = "shop/feeds.py:13 in download"
BUTTON = "Capture the next 10 runs"
STACK = (("/srv/app/outer.py", 7), (LEAK.path, LEAK.line))
"""Below the task, which is the first box."""


@dataclass(frozen=True)
class Shop:
    """The shop's worker, which records stacks, and a view that knows its app."""

    url: str
    client: Celery
    captures: Path
    numbers: Iterator[int] = field(default_factory=count)
    """Of the refreshes: each one's list is kept under its number."""

    def refresh(self, runs: int) -> None:
        """Has the leaking task run so many times."""
        for number in islice(self.numbers, runs):
            self.client.send_task(TASK, ("supplier", number))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """Tracing is always on: a capture is of the heap, and two of them differ by what leaked."""
    code = copy_of_shop(tmp_path / "shop")
    page, otlp = free_ports(2)
    url, endpoint = f"http://{LOOPBACK}:{page}/", f"http://{LOOPBACK}:{otlp}"
    captures = tmp_path / "captures"
    settings = {"TRACING": "always", "FRAMES": "6", "CAPTURE_DIRECTORY": str(captures)}
    with ExitStack() as stack:
        broker = stack.enter_context(running_redis(tmp_path))
        environ = shop_environ(broker, endpoint, settings)
        command = [*(sys.executable, "-m", "otel_celery_memory.cli", "view", "-A", "shop")]
        command += ["--port", str(page), "--otlp-port", str(otlp)]
        view = stack.enter_context(running("view", command, code, environ))
        view.wait_ready(lambda: answers(url))
        stack.enter_context(running_shop(code, environ, children=1))
        client = Celery("client", broker=broker, set_as_current=False)
        yield Shop(url, client, captures)


def press(page: Page, shop: Shop) -> None:
    """Begins a capture by the button, and has the task run until its result is on the page."""
    button = page.get_by_role("button", name=BUTTON)
    expect(button).to_be_enabled()
    button.click()
    said = page.locator("#captures [role=status]")
    expect(said).to_contain_text("Begun: the next 10 runs")
    shop.refresh(12)
    # When the result is shown, nothing is said any more.
    expect(said).to_have_text("")


def test_the_button_begins_a_capture_whose_flame_graph_has_the_leak_and_two_name_it(
    shop: Shop, open_page: OpenPage, tmp_path: Path, screenshot: Callable[[Page, str], None]
) -> None:
    page = open_page(shop.url)
    part = page.locator("#captures")
    expect(part).to_contain_text(NODE)
    # A heap has the imported modules, too: a leak of a few runs is a narrow box beside them.
    shop.refresh(100)
    press(page, shop)
    expect(part.locator("tbody").first.locator("tr")).to_have_count(1)
    box = part.locator(".flame button", has_text=LINE.removeprefix("shop/")).first
    expect(box).to_be_visible(timeout=20_000)
    assert (box.get_attribute("aria-label") or "").startswith(f"{LINE}: ")
    assert len(list(shop.captures.glob("*.capture.json.gz"))) == 1

    shop.refresh(100)
    press(page, shop)
    assert len(list(shop.captures.glob("*.capture.json.gz"))) == 2
    part.get_by_role("button", name="Compare").click()
    changes = part.get_by_role("region", name="What changed between the captures")
    first = changes.locator("tbody tr").first
    expect(first).to_contain_text(LINE)
    expect(first).to_contain_text("+")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert fits(page)
        screenshot(page, f"captures-{width}")

    with page.expect_download() as download:
        page.get_by_role("link", name="Save as a file").click()
    file = tmp_path / "saved.html"
    download.value.save_as(file)
    saved = open_page(file.as_uri(), offline=True, colours="dark", width=400)
    expect(saved.get_by_role("button", name=BUTTON)).to_have_count(0)
    saved.get_by_role("button", name="Show capture").first.click()
    expect(saved.locator(".flame button", has_text="download")).to_have_count(1)
    saved.get_by_role("button", name="Compare").click()
    expect(saved.locator("#captures tbody").last).to_contain_text(LINE)
    assert fits(saved)
    screenshot(saved, "captures-saved-400-dark")


@pytest.mark.parametrize("command", ["view", "report"])
def test_what_a_command_saves_at_its_end_shows_captures_without_files_and_network(
    open_page: OpenPage, tmp_path: Path, command: str
) -> None:
    """The files of the captures are gone by then, as on the machine of a colleague."""
    directory = tmp_path / "captures"
    page, otlp = free_ports(2)
    file = tmp_path / "saved.html"
    words = {
        "view": ["view", "--port", str(page), "--save", str(file)],
        "report": ["report", "--for", "1h", "-o", str(file)],
    }[command]
    argv = [sys.executable, "-m", "otel_celery_memory.cli", *words, "--otlp-port", str(otlp)]
    with running(command, argv, tmp_path) as server:
        endpoint = f"http://{LOOPBACK}:{otlp}"
        server.wait_ready(lambda: endpoint in server.log.read_text())
        worker = MadeUpWorker(endpoint)
        worker.tasks(["mail.send"])
        for runs in (20, 40):
            grown = replace(LEAK, size_bytes=runs * LEAK.size_bytes, stack=STACK)
            capture = replace(CAPTURE, sites=(grown,), taken_ns=CAPTURE.taken_ns + runs)
            saved_as = CaptureDirectory(directory).save(capture)
            worker.event(c.SNAPSHOT.name, "a capture", {c.SNAPSHOT_FILE: str(saved_as)})
        server.process.terminate()
        assert server.process.wait(60) == 0
    shutil.rmtree(directory)
    saved = open_page(file.as_uri(), offline=True)
    part = saved.locator("#captures")
    part.get_by_role("button", name="Show capture").first.click()
    boxes = part.locator(".flame button")
    expect(boxes).to_have_count(3)
    expect(boxes.last).to_contain_text("feeds.py:41 in refresh")
    part.get_by_role("button", name="Compare").click()
    changes = part.get_by_role("region", name="What changed between the captures")
    expect(changes.locator("tbody tr")).to_contain_text("feeds.py:41 in refresh")
    fetched = saved.evaluate("performance.getEntriesByType('resource').map(each => each.name)")
    assert [each for each in fetched if not each.startswith("data:")] == []


def test_a_flame_graph_is_read_by_keyboard_and_a_hostile_name_in_it_is_text(
    view: View, open_page: OpenPage, tmp_path: Path
) -> None:
    """`open_page` fails the test if a script of the name ran or was refused."""
    site = replace(
        LEAK,
        task=HOSTILE,
        path=f"/{HOSTILE}.py",
        function=HOSTILE,
        name=f"{HOSTILE}.py:41",
        stack=(("/app/outer.py", 7), (f"/{HOSTILE}.py", 41)),
    )
    capture = replace(CAPTURE, sites=(site,), runs={HOSTILE: 20}, reason=HOSTILE)
    file = CaptureDirectory(tmp_path / "captures").save(capture)
    worker = MadeUpWorker(view.endpoint)
    worker.tasks(["mail.send"])
    worker.event(c.SNAPSHOT.name, "a capture", {c.SNAPSHOT_FILE: str(file), c.SNAPSHOT_RUNS: 20})
    shown = HOSTILE.replace("\u202e", "?").replace("\x07", "?")
    page = open_page(view.url, width=400)
    page.get_by_role("button", name="Show capture").press("Enter")
    boxes = page.locator(".flame button")
    expect(boxes).to_have_count(3)
    said = page.locator(".flame-said")
    expect(said).to_contain_text(f"{shown}: 10.0 MiB in 20,480 blocks, 100 %")
    boxes.first.focus()
    page.keyboard.press("ArrowDown")
    expect(said).to_contain_text("outer.py:7")
    page.keyboard.press("ArrowDown")
    expect(said).to_contain_text(f"{shown}.py:41 in {shown}")
    expect(boxes.nth(2)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Show all of it")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Show all of it")).to_have_count(0)
    expect(page.locator("#captures table").last).to_contain_text(shown)
    assert page.locator("img, script:not([src])").count() == 0
    assert fits(page)


def test_a_capture_without_stacks_is_a_list_and_says_how_to_get_them(
    view: View, open_page: OpenPage, tmp_path: Path
) -> None:
    capture = replace(CAPTURE, sites=(replace(LEAK, stack=()),), frames=1)
    file = CaptureDirectory(tmp_path / "captures").save(capture)
    worker = MadeUpWorker(view.endpoint)
    worker.tasks(["mail.send"])
    worker.event(c.SNAPSHOT.name, "a capture", {c.SNAPSHOT_FILE: str(file)})
    page = open_page(view.url)
    page.get_by_role("button", name="Show capture").click()
    part = page.locator("#captures .captured")
    expect(part).to_contain_text("OTEL_CELERY_MEMORY_FRAMES=10")
    expect(part.locator("tbody tr")).to_contain_text("app/feeds.py:41 in refresh")
    expect(page.locator(".flame")).to_have_count(0)
