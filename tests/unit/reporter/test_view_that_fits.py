"""A view that is too large for its page is cut until it fits, and says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from otel_celery_memory.ipc.status_page import STATUS_BYTES, StatusPage
from otel_celery_memory.reporter.view import write_what_fits

LISTS = (
    *("objects", "sites", "tasks", "descendants", "processes"),
    *("switched_off", "captures", "losses", "verdicts"),
)


@pytest.fixture
def page() -> Iterator[StatusPage]:
    made = StatusPage()
    made.write({"from": "before"})
    yield made
    made.close()


def view_of(row_bytes: int = 100, **rows: int) -> dict[str, Any]:
    """A view with so many rows of each list, numbered, of so many bytes each."""
    made = {
        name: [f"{number:03}".ljust(row_bytes, "x") for number in range(rows.get(name, 3))]
        for name in LISTS
    }
    return {"tracing": {"mode": "budget"}, **made}


def shown(page: StatusPage) -> dict[str, int]:
    """How many rows of each list are on the page, which are the first ones."""
    view = page.read()
    assert view is not None
    assert all(row.startswith(f"{n:03}") for name in LISTS for n, row in enumerate(view[name]))
    return {name: len(view[name]) for name in LISTS}


def test_a_view_that_fits_is_written_as_it_is(page: StatusPage) -> None:
    view = view_of()
    assert write_what_fits(view, page.write)
    assert page.read() == view


def test_sites_go_first(page: StatusPage) -> None:
    view = view_of(2_000, sites=100, tasks=50, processes=30)
    before = json.dumps(view)
    assert write_what_fits(view, page.write)
    assert shown(page) == {
        "sites": 25,
        "tasks": 50,
        "descendants": 3,
        "processes": 30,
        "switched_off": 3,
        "captures": 3,
        "objects": 3,
        "losses": 3,
        "verdicts": 3,
    }
    found = page.read()
    assert found is not None
    assert found["left_out"] == {"sites": 75}
    assert json.dumps(view) == before


def test_then_tasks_and_processes_and_of_each_the_first_five_stay(page: StatusPage) -> None:
    assert write_what_fits(view_of(6_000, sites=100, tasks=50, processes=200), page.write)
    assert shown(page) == {
        "sites": 5,
        "tasks": 5,
        "descendants": 3,
        "processes": 12,
        "switched_off": 3,
        "captures": 3,
        "losses": 3,
        "verdicts": 3,
        "objects": 3,
    }
    found = page.read()
    assert found is not None
    assert found["left_out"] == {"sites": 95, "tasks": 45, "processes": 188}


def test_verdicts_go_last(page: StatusPage) -> None:
    assert write_what_fits(view_of(5_000, **dict.fromkeys(LISTS, 9)), page.write)
    found = shown(page)
    assert found.pop("verdicts") == 9
    assert set(found.values()) == {5}


def test_where_a_row_is_as_large_as_the_page_the_lists_are_empty(page: StatusPage) -> None:
    assert write_what_fits(view_of(STATUS_BYTES), page.write)
    assert set(shown(page).values()) == {0}


def test_what_fits_nowhere_is_not_written_and_no_error(page: StatusPage) -> None:
    assert not write_what_fits({**view_of(), "tracing": "x" * STATUS_BYTES}, page.write)
    assert page.read() == {"from": "before"}


def test_what_is_kept_for_the_next_reporter_is_the_first_to_go() -> None:
    written: list[dict[str, Any]] = []

    def write(view: dict[str, Any]) -> bool:
        written.append(view)
        return "evidence" not in view

    lists = {name: [1] for name in LISTS}
    assert write_what_fits({**lists, "evidence": {"growth": {}}}, write)
    assert written[-1] == lists
