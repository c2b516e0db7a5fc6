"""How a process traces: as the settings say, until a person wants it otherwise."""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from otel_celery_memory.ipc.commands import COMMANDS_BYTES, Commands
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import Record, SitesWindow, WindowKind
from otel_celery_memory.probes import urgent_signal
from otel_celery_memory.probes.sites import SiteFilter
from otel_celery_memory.probes.tracemalloc_session import TracemallocSession
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.tracing.allocation_tracer import AllocationTracer
from tests.unit.fakes import ListSink


class Process:
    """A process whose runs follow one another."""

    def __init__(self, page: ControlPage, mode: str = "budget") -> None:
        self.sink = ListSink()
        self.page = page
        self.tracer = TracemallocSession(1, tuple)
        # Tests of ours have names of their own for Python's functions.
        self.tracer._modules_seen.update(sys.modules)
        self.previous = ""
        self.tracing = AllocationTracer(
            0,
            self.sink,
            Settings(tracing=mode),
            page,
            self.tracer,
            lambda _: None,
            SiteFilter(include=[__file__]),
        )

    def start(self, name: str = "a") -> bool:
        task: Any = SimpleNamespace(name=name)
        self.tracing.starting()
        previous, self.previous = self.previous, name
        return self.tracing.started("1", task, previous, alone=True)

    def end(self, name: str = "a", *, raised: bool = False) -> None:
        self.tracing.ended("1", name, exclusive=True, raised=raised)

    def run(self, name: str = "a", times: int = 1) -> list[bool]:
        """Runs that leave nothing; whether their numbers began anew."""
        found = []
        for _ in range(times):
            found.append(self.start(name))
            self.end(name)
        return found

    def windows(self) -> list[tuple[str, str, int]]:
        """Kind, task and capture of the windows since the last time."""
        records: list[Record] = self.sink.records[:]
        self.sink.records.clear()
        return [
            (WindowKind(r.kind).name, r.task, r.capture)
            for r in records
            if isinstance(r, SitesWindow)
        ]


@pytest.fixture
def page() -> Iterator[ControlPage]:
    made = ControlPage()
    yield made
    made.close()


@pytest.fixture
def process(page: ControlPage) -> Iterator[Process]:
    made = Process(page)
    yield made
    made.tracing.stop()
    urgent_signal.release()


def order(page: ControlPage, **changes: Any) -> None:
    page.set_commands(replace(page.commands(), **changes))


def capture(page: ControlPage, number: int = 1, runs: int = 2) -> None:
    order(page, capture=number, runs=runs, until_s=time.monotonic() + 60, allowance_s=1.0)


def test_within_a_budget_it_is_on_only_in_a_traced_run(process: Process) -> None:
    assert True in process.run(times=20_000)
    process.tracing.tasks.down()
    assert not process.tracer.ours
    assert {window[1:] for window in process.windows()} == {("a", 0)}


def test_always_is_on_from_the_beginning_and_every_run_has_numbers(page: ControlPage) -> None:
    process = Process(page, "always")
    assert process.tracer.ours
    assert process.run(times=3) == [True, True, True]
    assert process.windows()[0] == ("COMPLETE", "a", 0)
    process.tracing.down("a")
    process.tracing.stop()
    assert not process.tracer.ours


def test_always_a_run_that_raised_holds_its_exception_and_is_no_whole_run(
    page: ControlPage,
) -> None:
    process = Process(page, "always")
    for name, raised in (("a", True), ("b", True), ("c", False)):
        process.start(name)
        process.end(name, raised=raised)
    process.start()
    assert process.windows() == [("PARTIAL", "a", 0), ("PARTIAL", "b", 0), ("COMPLETE", "c", 0)]
    process.tracing.stop()


def test_off_is_off(page: ControlPage) -> None:
    process = Process(page, "off")
    assert process.run(times=200) == [False] * 200
    assert process.windows() == []
    process.tracing.stop()


def test_another_mode_is_taken_up_at_the_next_task(process: Process, page: ControlPage) -> None:
    modes = []
    for mode in ("always", "off", "budget", "always", "budget", ""):
        order(page, mode=mode)
        process.run()
        process.tracing.starting()
        modes.append((process.tracing.mode, process.tracer.ours))
    assert modes == [
        ("always", True),
        ("off", False),
        ("budget", False),
        ("always", True),
        ("budget", False),
        ("budget", False),
    ]


def test_always_in_the_middle_of_a_traced_run_ends_that_run_s_tracing_and_stays_on(
    process: Process, page: ControlPage
) -> None:
    process.run(times=200)
    process.tracing.tasks.down()
    while not process.start():
        process.end()
    assert process.tracer.ours
    order(page, mode="always")
    process.run("b")
    assert process.tracer.ours
    process.end()
    process.run("b", times=3)
    assert process.tracer.ours


def test_a_child_that_is_up_in_the_middle_of_a_capture_takes_part_in_it(page: ControlPage) -> None:
    capture(page)
    process = Process(page, "off")
    assert process.run(times=4) == [True, True, False, False]
    assert process.windows() == [("COMPLETE", "a", 1)] * 2
    process.tracing.stop()


def test_a_child_that_is_up_after_it_does_not(page: ControlPage) -> None:
    order(page, capture=1, runs=2, until_s=time.monotonic() - 1, allowance_s=1.0)
    process = Process(page, "off")
    assert process.run(times=3) == [False] * 3
    process.tracing.stop()


def test_an_order_of_another_mode_does_not_begin_a_capture_again(
    process: Process, page: ControlPage
) -> None:
    order(page, mode="off")
    capture(page)
    assert process.run(times=3) == [True, True, False]
    order(page, mode="")
    order(page, mode="off")
    assert process.run(times=3) == [False] * 3


def test_where_tracing_is_always_on_a_capture_is_of_the_whole_heap_once(
    page: ControlPage,
) -> None:
    process = Process(page, "always")
    process.run()
    capture(page, 4)
    process.run(times=2)
    order(page, mode="always")
    process.run(times=2)
    assert [w for w in process.windows() if w[0] == "HEAP"] == [("HEAP", "", 4)]
    capture(page, 5)
    process.tracing.capture_now()
    process.tracing.capture_now()
    process.run()
    assert [w for w in process.windows() if w[0] == "HEAP"] == [("HEAP", "", 5)]
    process.tracing.stop()


def test_the_whole_heap_is_captured_once_in_a_slot_however_short_its_children_live(
    page: ControlPage,
) -> None:
    capture(page, 4)
    windows = []
    for _ in range(2):
        process = Process(page, "always")
        process.run(times=2)
        windows += [w for w in process.windows() if w[0] == "HEAP"]
        process.tracing.stop()
    assert windows == [("HEAP", "", 4)]


def test_garbage_on_the_page_orders_nothing_and_the_order_before_holds(
    process: Process, page: ControlPage
) -> None:
    page.set_commands(Commands("off"))
    process.run()
    page._map[8:COMMANDS_BYTES] = b"\xff" * (COMMANDS_BYTES - 8)
    page._map[0:8] = b"\x77" * 8
    process.run(times=300)
    assert process.tracing.mode == "off"
    assert {window[2] for window in process.windows()} <= {0}


def test_an_order_that_was_being_written_is_obeyed_at_the_task_behind(
    process: Process, page: ControlPage
) -> None:
    page.set_commands(Commands("off"))
    whole = page._map[:COMMANDS_BYTES]
    page._map[COMMANDS_BYTES - 8 : COMMANDS_BYTES] = bytes(8)
    process.run()
    assert process.tracing.mode == "budget"
    late = Process(page)
    late.run()
    assert late.tracing.mode == "budget"
    page._map[:COMMANDS_BYTES] = whole
    process.run()
    late.run()
    assert (process.tracing.mode, late.tracing.mode) == ("off", "off")
    late.tracing.stop()


def test_a_user_s_tracing_outlives_every_mode(process: Process, page: ControlPage) -> None:
    tracemalloc.start(6)
    for mode in ("always", "budget", "off"):
        order(page, mode=mode)
        process.run(times=3)
    process.tracing.stop()
    assert tracemalloc.get_traceback_limit() == 6
    tracemalloc.stop()
