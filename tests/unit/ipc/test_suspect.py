"""The task that the reporter suspects, on the control page."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from otel_celery_memory.ipc.control_page import PAGE_BYTES, ControlPage


@pytest.fixture
def page() -> Iterator[ControlPage]:
    made = ControlPage.create()
    yield made
    made.close()


def test_a_new_page_suspects_nobody(page: ControlPage) -> None:
    assert page.suspect.read() == (0, "")


def test_each_order_has_another_number(page: ControlPage) -> None:
    page.suspect.write("shop.tasks.import_feed")
    first, task = page.suspect.read()
    page.suspect.write("shop.tasks.import_feed")
    assert page.suspect.read()[0] not in (0, first)
    assert task == "shop.tasks.import_feed"


def test_a_name_that_is_too_long_is_not_written(page: ControlPage) -> None:
    page.suspect.write("x" * 1_000)
    assert page.suspect.read() == (0, "")


def test_what_is_damaged_suspects_nobody(page: ControlPage) -> None:
    page.suspect.write("t")
    os.pwrite(page.fd, b"\xff" * PAGE_BYTES, 0)
    assert page.suspect.read() == (0, "")
    page.suspect.write("t")
    assert page.suspect.read() == (1, "t")
