"""Properties of the pages: written values are read; any other content is rejected."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from otel_celery_memory.ipc import status_page
from otel_celery_memory.ipc.codec import records_in
from otel_celery_memory.ipc.commands import (
    CAPTURE_RUNS_MAX,
    CAPTURE_SECONDS_MAX,
    TRACING_MODES,
    Balance,
    Commands,
)
from otel_celery_memory.ipc.control_page import IN_FLIGHT_BYTES, PAGE_BYTES, ControlPage
from otel_celery_memory.ipc.status_page import STATUS_BYTES, StatusPage
from tests.unit.arbitrary import INT64, JSON, TEXT

NOW_S = 100.0
HEADER = struct.Struct("<QII")
COMMANDS = st.builds(
    Commands,
    st.sampled_from(["", *TRACING_MODES]),
    st.integers(0, 2**63 - 1),
    st.integers(0, CAPTURE_RUNS_MAX),
    st.booleans(),
    st.floats(0, NOW_S + CAPTURE_SECONDS_MAX),
    st.floats(0, CAPTURE_SECONDS_MAX),
)
BALANCES = st.builds(Balance, *[st.floats(0, 1e12, exclude_max=True)] * 5)
# Each example overwrites everything that it reads.
on_one_page = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def _tiled(pattern: bytes) -> bytes:
    return (pattern * (PAGE_BYTES // len(pattern) + 1))[:PAGE_BYTES]


PAGES = st.one_of(
    st.binary(min_size=1, max_size=300).map(_tiled),
    # Numbers of eight bytes, as everything on the page begins at a multiple of eight.
    st.lists(
        st.one_of(INT64.map(struct.Struct("<q").pack), st.floats().map(struct.Struct("<d").pack))
    )
    .filter(bool)
    .map(b"".join)
    .map(_tiled),
)
_ORDER_CELLS = 7


@pytest.fixture
def page() -> Iterator[ControlPage]:
    made = ControlPage.create(clock_s=lambda: NOW_S)
    yield made
    made.close()


@pytest.fixture
def view(monkeypatch: pytest.MonkeyPatch) -> Iterator[StatusPage]:
    monkeypatch.setattr(status_page, "_WAIT_S", 0.0)
    made = StatusPage.create()
    yield made
    made.close()


@on_one_page
@given(
    commands=COMMANDS,
    at=st.integers(1, _ORDER_CELLS - 1),
    cell=st.one_of(INT64.map(struct.Struct("<q").pack), st.floats().map(struct.Struct("<d").pack)),
)
def test_commands_with_one_damaged_value_are_within_bounds_or_the_default(
    page: ControlPage, commands: Commands, at: int, cell: bytes
) -> None:
    page.set_commands(commands)
    os.pwrite(page.fd, cell, 8 * at)
    assert_within_bounds(page.commands())


def assert_within_bounds(commands: Commands) -> None:
    """All values are within bounds."""
    assert commands.mode in ("", *TRACING_MODES)
    assert 0 <= commands.capture < 2**63
    assert 0 <= commands.runs <= CAPTURE_RUNS_MAX
    assert 0 <= commands.until_s <= NOW_S + CAPTURE_SECONDS_MAX
    assert 0 <= commands.allowance_s <= CAPTURE_SECONDS_MAX


@on_one_page
@given(content=PAGES, slot=INT64)
def test_any_content_of_a_control_page_is_read_within_bounds(
    page: ControlPage, content: bytes, slot: int
) -> None:
    os.pwrite(page.fd, content, 0)
    assert_within_bounds(page.commands())
    assert all(0 <= value < 1e12 for value in vars(page.load(slot)).values())
    assert all(0 <= total < 1e15 for total in page.totals())
    assert 0 <= page.drop_counters.counts().total < 2**63
    assert all(0 < pid < 2**63 for pid in page.acknowledged_exits.pids())
    held = page.in_flight(slot)
    assert len(held) <= IN_FLIGHT_BYTES
    assert len(records_in(held)) < IN_FLIGHT_BYTES


@on_one_page
@given(
    content=PAGES,
    commands=COMMANDS,
    balance=BALANCES,
    slot=st.integers(-1, 510),
    pid=st.integers(1, 2**22),
)
def test_values_written_over_any_content_are_read_as_written(
    page: ControlPage, content: bytes, commands: Commands, balance: Balance, slot: int, pid: int
) -> None:
    os.pwrite(page.fd, content, 0)
    before = page.commands_version()
    page.set_commands(commands)
    page.save(slot, balance)
    page.drop_counters.count(slot)
    page.drop_counters.count_damaged(1)
    page.acknowledged_exits.add(pid)
    assert page.commands_version() != before
    assert (page.commands(), page.load(slot)) == (commands, balance)
    assert pid in page.acknowledged_exits.pids()


@on_one_page
@given(content=st.binary(max_size=400))
@example(b"\xff" * 400)
def test_any_content_of_a_status_page_is_no_view(view: StatusPage, content: bytes) -> None:
    os.pwrite(view.fd, content + bytes(400 - len(content)), 0)
    assert view.read() is None


@on_one_page
@given(
    data=st.one_of(JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=300)),
    number=st.integers(0, 2**64 - 1),
)
def test_valid_json_on_a_status_page_is_a_view_only_if_it_is_an_object(
    view: StatusPage, data: bytes, number: int
) -> None:
    os.pwrite(view.fd, HEADER.pack(number, len(data), crc32(data)) + data, 0)
    found = view.read()
    assert found is None or json.dumps(found) == json.dumps(json.loads(data))


@on_one_page
@given(found=st.dictionaries(TEXT, JSON, max_size=3), content=st.binary(max_size=100))
@example(found={}, content=b"\xfe" + b"\xff" * 7)
def test_a_view_is_read_as_it_was_written_or_not_written(
    view: StatusPage, found: dict[str, Any], content: bytes
) -> None:
    os.pwrite(view.fd, content, 0)
    fits = len(json.dumps(found, separators=(",", ":"))) <= STATUS_BYTES - HEADER.size
    assert view.write(found) == fits
    if fits:
        assert json.dumps(view.read()) == json.dumps(found)
