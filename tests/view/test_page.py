"""What a person sees in a browser, on data of a real worker and of made-up ones."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from demo.environment import SERVICE_NAME
from otel_celery_memory import conventions as c
from otel_celery_memory.leaks.verdict import State
from otel_celery_memory.view.otlp import Value
from tests.processes import Server
from tests.view.conftest import TIMEOUT_MS, OpenPage, View
from tests.view.sending import MadeUpWorker

pytestmark = pytest.mark.browser
expect.set_options(timeout=TIMEOUT_MS)

LEAK: dict[str, Value] = {
    c.TASK_NAME: "feeds.refresh",
    c.LEAK_STATE: State.LEAKING.value,
    c.LEAK_KIND: "python",
    c.LEAK_WHERE: "task",
    c.LEAK_RATE: 528_800.0,
    c.LEAK_RATE_LOW: 510_200.0,
    c.LEAK_RATE_HIGH: 547_300.0,
    c.LEAK_RUNS: 237,
    c.LEAK_PROCESSES: 2,
    c.LEAK_EXPLAINED: 0.97,
    c.SITE_NAME: "demo/app.py:26",
    c.SITE_SHARE: 0.97,
    c.CODE_LINE: 26,
    c.CODE_FUNCTION: "refresh",
    c.LEAK_HOLDER: "demo.app._entries_by_refresh",
    c.LEAK_TYPES: "list, str",
    c.EXHAUSTION_TIME: 25_200.0,
    c.MAX_TASKS_PER_CHILD: 4_000,
}
HOSTILE = (
    "<img src=x onerror=alert(1)></td></script><script>alert(2)</script>\u202eevil\x07 {{7*7}}"
)
ROOT = Path(__file__).resolve().parents[2]
WIDTHS = (1280, 400)
DRAWN_MAX = 200
"""Rows of tasks in the page, however many tasks there are; each is a height of 44 or more."""
CHANGES_MAX = 40
"""Changes of the page after an export in which one task has run."""
COUNT_CHANGES = """() => {
  window.changed = 0;
  new MutationObserver((changes) => { window.changed += changes.length; }).observe(
    document.body, { subtree: true, childList: true, characterData: true, attributes: true });
}"""


def fits(page: Page) -> bool:
    """Whether nothing of the page is beyond its right edge."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_without_data_says_what_to_do_next(
    view: View, open_page: OpenPage, width: int, screenshot: Callable[[Page, str], None]
) -> None:
    page = open_page(view.url, width=width)
    expect(page.locator("#verdicts")).to_contain_text("No worker has sent anything yet")
    command = f"OTEL_EXPORTER_OTLP_ENDPOINT={view.endpoint} celery -A yourapp worker"
    expect(page.locator("#verdicts pre").nth(1)).to_have_text(command)
    expect(page.locator("#verdicts")).to_contain_text("otel-celery-memory check")
    assert fits(page)
    screenshot(page, f"view-empty-{width}")


def test_the_page_shows_a_real_worker_while_it_leaks_and_after_it_has_shut_down(
    view: View,
    open_page: OpenPage,
    demo: Callable[[str], AbstractContextManager[Server]],
    screenshot: Callable[[Page, str], None],
    tmp_path: Path,
) -> None:
    page = open_page(view.url)
    with demo(view.endpoint) as worker:
        processes = page.locator("#processes")
        for name in ("main", "child 0", "child 1", "reporter"):
            expect(processes.get_by_role("rowheader", name=name).first).to_be_visible()
        expect(processes.locator("canvas")).to_be_visible()
        first = page.locator("#tasks tbody tr", has_text="feeds.refresh")
        expect(first).to_contain_text("KiB")
        site = page.locator("#sites li", has_text="demo/app.py:").first
        site.locator("summary").first.click()
        expect(site.locator(".here")).to_contain_text("# the leak")
        expect(page.locator("#verdicts")).to_contain_text("No leak is established")
        of = {**LEAK, c.CODE_FILE: str(ROOT / "demo" / "app.py")}
        node = page.locator("#processes h3").inner_text()
        sender = MadeUpWorker(view.endpoint, node, SERVICE_NAME, socket.gethostname())
        sender.event(c.LEAK.name, "feeds.refresh leaks 516.4 KiB a run.", of)
        worker.process.wait(180)
    expect(page.locator("#processes")).to_contain_text("shut down at")
    expect(page.locator("#happened")).to_contain_text("shut down")
    for width in WIDTHS:
        for colours in ("light", "dark"):
            other = open_page(view.url, width=width, colours=colours)
            expect(other.locator("#tasks")).to_contain_text("feeds.refresh")
            assert fits(other)
            screenshot(other, f"view-{width}-{colours}")


def test_a_verdict_is_told_in_words_with_its_line_and_who_holds_it(
    view: View, open_page: OpenPage
) -> None:
    worker = MadeUpWorker(view.endpoint)
    worker.tasks(["mail.send", "feeds.refresh"])
    page = open_page(view.url)
    worker.event(
        c.LEAK.name, "feeds.refresh leaks.", {**LEAK, c.CODE_FILE: str(ROOT / "demo" / "app.py")}
    )
    card = page.locator(".verdict")
    for said in (
        "feeds.refresh leaks",
        "516.4 KiB a run",
        "498.2 KiB to 534.5 KiB · 237 runs · 2 processes",
        "demo.app._entries_by_refresh",
        "demo/app.py:26 in refresh (97 % of it)",
        "in about 7 h at this pace",
        "max_tasks_per_child ≤ 4,000",
        "3 % of the growth",
    ):
        expect(card).to_contain_text(said)
    expect(card.locator(".here")).to_contain_text("_entries_by_refresh.append")
    worker.event(c.LEAK.name, "It is over.", {**LEAK, c.LEAK_STATE: State.ENDED.value})
    expect(card).to_contain_text("feeds.refresh leaks no more")
    expect(page.locator(".verdict")).to_have_count(1)


def test_a_hostile_name_is_text_wherever_it_stands(view: View, open_page: OpenPage) -> None:
    """And in what is saved; `open_page` fails the test if a script of it ran or was refused."""
    worker = MadeUpWorker(view.endpoint, HOSTILE)
    worker.tasks([HOSTILE])
    named = dict.fromkeys((c.TASK_NAME, c.LEAK_KIND, c.LEAK_WHERE, c.LEAK_HOLDER), HOSTILE)
    code = dict.fromkeys((c.SITE_NAME, c.CODE_FILE, c.CODE_FUNCTION, c.SITE_VIA), HOSTILE)
    worker.event(c.LEAK.name, HOSTILE, {**named, **code, c.LEAK_STATE: HOSTILE, c.LEAK_RATE: 1.0})
    worker.event(
        c.ALLOCATION_SITE.name, HOSTILE, {**named, **code, c.SITE_RANK: 1, c.SITE_WINDOW: HOSTILE}
    )
    worker.event(c.PROCESS_LOST.name, HOSTILE, {c.SLOT: HOSTILE, c.TASK_NAME: HOSTILE})
    worker.event(c.PRESSURE.name, HOSTILE, {c.LIMIT_KIND: HOSTILE})
    worker.metrics((c.MEMORY, 5.0, {c.SLOT: HOSTILE}, 0))
    shown = HOSTILE.replace("\u202e", "?").replace("\x07", "?")
    for page in (open_page(view.url), open_page(f"{view.url}?again", width=400)):
        for part in ("#verdicts", "#processes", "#tasks", "#sites", "#happened"):
            expect(page.locator(part)).to_contain_text(shown)
        assert page.locator("img, script:not([src])").count() == 0
        assert fits(page)


def test_a_thousand_tasks_can_be_searched_sorted_and_shown(view: View, open_page: OpenPage) -> None:
    MadeUpWorker(view.endpoint).tasks(f"shop.tasks.task_{number:04}" for number in range(1_000))
    page = open_page(view.url)
    rows = page.locator("#tasks tbody tr")
    expect(rows).to_have_count(25)
    expect(rows.first).to_contain_text("task_0999")
    page.get_by_role("button", name="task", exact=True).click()
    expect(rows.first).to_contain_text("task_0000")
    expect(page.locator("#tasks th[aria-sort=ascending]")).to_have_text("task")
    page.get_by_role("button", name="runs", exact=True).press("Enter")
    expect(rows.first).to_contain_text("task_0999")
    page.get_by_role("searchbox").fill("TASK_012")
    expect(rows).to_have_count(10)
    page.get_by_role("searchbox").fill("")
    narrow = open_page(view.url, width=400)
    assert fits(narrow)


@pytest.mark.parametrize("width", WIDTHS)
def test_of_a_thousand_tasks_those_in_sight_are_drawn_and_an_update_changes_what_changed(
    view: View, open_page: OpenPage, width: int
) -> None:
    worker = MadeUpWorker(view.endpoint)
    names = [f"shop.tasks.task_{number:04}" for number in range(1_000)]
    worker.tasks(names)
    page = open_page(view.url, width=width)
    page.get_by_role("button", name="task", exact=True).dispatch_event("click")
    page.get_by_role("button", name="Show all 1,000").click()
    rows = page.locator("#tasks tbody tr[aria-rowindex]")
    table = page.get_by_role("region", name="Tasks")
    expect(table.locator("table")).to_have_attribute("aria-rowcount", "1001")
    last = rows.filter(has_text="task_0999")
    assert rows.count() <= DRAWN_MAX
    expect(last).to_have_count(0)
    page.get_by_role("button", name="Show the first 25").scroll_into_view_if_needed()
    expect(last).to_be_visible()
    expect(last).to_have_attribute("aria-rowindex", "1001")
    assert rows.count() <= DRAWN_MAX
    # The way back is as long as the way there: what was drawn leaves its room behind.
    page.evaluate("scrollTo(0, 0)")
    expect(rows.first).to_contain_text("task_0000")
    expect(last).to_have_count(0)

    page.evaluate(COUNT_CHANGES)
    of: dict[str, Value] = {c.TASK_NAME: names[0], c.TASK_STATE: "SUCCESS", c.EXCLUSIVE: True}
    worker.metrics((c.MEASURED, 4_711.0, of, 0))
    expect(rows.first).to_contain_text("4,711")
    assert page.evaluate("changed") <= CHANGES_MAX

    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(rows).to_have_count(1_000)
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(last).to_have_count(0)


def test_in_a_narrow_window_tasks_are_there_unscrolled_and_their_order_can_be_chosen(
    view: View, open_page: OpenPage
) -> None:
    worker = MadeUpWorker(view.endpoint)
    worker.tasks([f"task_{number:02}" for number in range(12)])
    # What is above fills the window many times.
    for number in range(20):
        of = {**LEAK, c.TASK_NAME: f"task_{number:02}"}
        worker.event(c.LEAK.name, "It leaks. " * 50, of)
    page = open_page(view.url, width=400)
    rows = page.locator("#tasks tbody tr")
    expect(page.locator(".verdict")).to_have_count(20)
    expect(rows).to_have_count(12)
    expect(rows.first).to_contain_text("task_11")
    page.get_by_label("Sorted by").select_option("task")
    expect(rows.first).to_contain_text("task_00")
    assert fits(page)
    wide = open_page(view.url)
    expect(wide.locator("#tasks tbody tr")).to_have_count(12)
    expect(wide.get_by_label("Sorted by")).to_be_hidden()


def test_what_says_nothing_to_a_person_is_not_on_the_page(view: View, open_page: OpenPage) -> None:
    """A name that OpenTelemetry made up, a range from a number to itself, and zero per cent."""
    worker = MadeUpWorker(view.endpoint, service="unknown_service:python3")
    worker.metrics(
        (c.MEMORY, 64 << 20, {c.SLOT: "main"}, 0),
        (c.MEMORY_LIMIT, 8 << 30, {c.LIMIT_KIND: "host"}, 0),
        (c.EXHAUSTION_TIME, 25_200.0, {c.SLOT: "main"}, 0),
    )
    same = dict.fromkeys((c.LEAK_RATE, c.LEAK_RATE_LOW, c.LEAK_RATE_HIGH), 528_800.0)
    headline = "feeds.refresh leaks 516.4 KiB a run (237 runs in 2 processes, since 12:00)."
    of = {**LEAK, **same, c.LEAK_EXPLAINED: 0.999}
    worker.event(c.LEAK.name, f"{headline} Python objects: +1.5 list a run.", of)
    page = open_page(view.url)
    card = page.locator(".verdict")
    expect(card.locator(".basis")).to_have_text("237 runs · 2 processes")
    expect(card).not_to_contain_text("Not explained")
    processes = page.locator("#processes")
    expect(processes).to_contain_text("on box")
    expect(processes).not_to_contain_text("unknown_service")
    # The other sentences are on the card.
    expect(page.locator("#happened .timeline p").first).to_have_text(headline)
    # The limit of all processes is not that of the main process.
    expect(processes.locator("td", has_text="in 7 h")).to_contain_text("all together")


def test_a_reload_shows_what_was_there_and_an_update_keeps_what_a_person_chose(
    view: View, open_page: OpenPage
) -> None:
    worker = MadeUpWorker(view.endpoint)
    worker.tasks(["mail.send", "feeds.refresh"])
    page = open_page(view.url)
    rows = page.locator("#tasks tbody tr")
    expect(rows).to_have_count(2)
    page.reload()
    expect(rows).to_have_count(2)
    button = page.get_by_role("button", name="task", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    worker.tasks(["a.new", "mail.send", "feeds.refresh"])
    expect(rows).to_have_count(3)
    expect(button).to_be_focused()
    expect(rows.first).to_contain_text("a.new")


def test_colours_are_chosen_and_kept(view: View, open_page: OpenPage) -> None:
    page = open_page(view.url, colours="dark")
    root = page.locator("html")
    expect(root).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Colours: system").click()
    expect(root).to_have_attribute("data-theme", "light")
    page.reload()
    expect(root).to_have_attribute("data-theme", "light")


def test_the_keyboard_reaches_everything_beginning_with_the_way_past_the_head(
    view: View, open_page: OpenPage
) -> None:
    MadeUpWorker(view.endpoint).tasks(["mail.send"])
    page = open_page(view.url)
    expect(page.locator("#tasks tbody tr")).to_have_count(1)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.textContent.slice(0, 40)"))
    assert {"task", "runs", "retained a run", "share of growth"} <= reached


def test_a_worker_that_goes_away_and_two_of_one_name_are_told(
    view: View, open_page: OpenPage
) -> None:
    """Twenty seconds of silence are what it takes where it sent but once."""
    first = MadeUpWorker(view.endpoint, "gone@box")
    first.tasks(["mail.send"])
    twin = [MadeUpWorker(view.endpoint, "twin@box") for _ in range(2)]
    for each in (twin[0], twin[1], twin[0]):
        each.tasks(["mail.send"])
    page = open_page(view.url)
    expect(page.locator("#processes article", has_text="twin@box")).to_contain_text(
        "Two workers send under this name"
    )
    gone = page.locator("#processes article", has_text="gone@box")
    expect(gone).to_contain_text("silent since")
    expect(gone).to_contain_text("It stopped sending without a goodbye")
    expect(page.locator("#happened")).to_contain_text("gone@box sent the last time")


def test_a_page_whose_view_has_ended_says_so_and_keeps_what_it_had(
    view: View, open_page: OpenPage
) -> None:
    MadeUpWorker(view.endpoint).tasks(["mail.send"])
    page = open_page(view.url)
    expect(page.locator("#tasks tbody tr")).to_have_count(1)
    view.server.process.terminate()
    expect(page.get_by_role("alert")).to_contain_text("The view has ended or cannot be reached")
    expect(page.locator("#tasks")).to_contain_text("mail.send")
    assert view.server.process.wait(30) == 0


def test_a_saved_page_opens_from_a_file_without_a_network(
    view: View, open_page: OpenPage, tmp_path: Path
) -> None:
    worker = MadeUpWorker(view.endpoint)
    worker.tasks(["mail.send", HOSTILE])
    worker.event(
        c.LEAK.name, "feeds.refresh leaks.", {**LEAK, c.CODE_FILE: str(ROOT / "demo" / "app.py")}
    )
    page = open_page(view.url)
    with page.expect_download() as download:
        page.get_by_role("link", name="Save as a file").click()
    file = tmp_path / "saved.html"
    download.value.save_as(file)
    saved = open_page(file.as_uri(), offline=True)
    expect(saved.locator(".summary")).to_contain_text("saved")
    expect(saved.locator(".verdict")).to_contain_text("516.4 KiB a run")
    expect(saved.locator(".verdict .here")).to_contain_text("_entries_by_refresh.append")
    expect(saved.locator("#tasks")).to_contain_text("</script><script>alert(2)")
    expect(saved.get_by_role("link", name="Save as a file")).to_have_count(0)
    fetched = saved.evaluate("performance.getEntriesByType('resource').map(each => each.name)")
    assert [each for each in fetched if not each.startswith("data:")] == []
