"""A census is taken in short steps between runs, of what grew, and refused where it would harm."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import ObjectsCounted, Record, TypeGrown
from otel_celery_memory.probes.allocators import SharedHeap
from otel_celery_memory.worker.measuring.census import ObjectCensus, shared_bytes
from otel_celery_memory.worker.measuring.run_counters import Collector
from tests.unit.fakes import FakeClock

HERE = __name__
TASK = "app.sell"


class Order:
    """What accumulates."""


SEEN: list[Any] = []
TEXTS: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    SEEN.clear()
    TEXTS.clear()


class Process:
    """A process on a clock that runs tasks."""

    def __init__(self, slot: int = 0, page: ControlPage | None = None, **options: Any) -> None:
        self.clock = FakeClock(1_000.0)
        self.page = page or ControlPage(clock_s=self.clock)
        self.records: list[Record] = []
        self.cpu_ns = 0
        given: dict[str, Any] = {"room": lambda pid, share: None, "cpu_ns": self._cpu, **options}
        self.census = ObjectCensus(slot, self, self.page, clock_s=self.clock, **given)

    def _cpu(self) -> int:
        return self.cpu_ns

    def send(self, record: Record) -> bool:
        self.records.append(record)
        return True

    def order(self, runs: int = 10, *, seconds: float = 120.0, **fields: Any) -> None:
        commands = Commands(runs=runs, until_s=self.clock() + seconds, allowance_s=5.0, census=1)
        self.page.set_commands(Commands(**{**vars(commands), **fields}))

    def run(self, keeps: Callable[[], object] = lambda: None, task: str = TASK) -> bool:
        """A run of the task; whether something was done before it."""
        worked = self.census.boundary(task)
        keeps()
        return worked

    def run_to_the_end(self, keeps: Callable[[], object] = lambda: None) -> int:
        """Runs until the census is complete; how many."""
        runs = 0
        while self.census.active:
            self.run(keeps)
            runs += 1
            assert runs < 100
        return runs

    @property
    def end(self) -> ObjectsCounted:
        (found,) = [record for record in self.records if isinstance(record, ObjectsCounted)]
        return found

    def grown(self) -> dict[str, TypeGrown]:
        return {record.type: record for record in self.records if isinstance(record, TypeGrown)}


def sell() -> None:
    SEEN.extend(Order() for _ in range(100))
    TEXTS.extend(f"order {number}" for number in range(100))


def test_what_each_run_keeps_is_found_with_its_number_and_its_holder() -> None:
    TEXTS.extend(str(number) for number in range(100))
    process = Process()
    process.order()
    process.run_to_the_end(sell)
    order, text = process.grown()[f"{HERE}.Order"], process.grown()["str"]
    assert (order.growth, order.runs, order.objects) == (1_000, 10, 1_000)
    assert (order.holder, order.alike, order.sampled) == (f"{HERE}.SEEN → list[…]", 8, 8)
    assert (text.growth, text.holder) == (text.runs * 100, f"{HERE}.TEXTS")
    end = process.end
    assert (end.pid, end.census, end.runs, end.problem) == (os.getpid(), 1, 10, "")
    assert end.growth == pytest.approx(1_000, abs=200)
    assert (end.collected, end.hold_ns > 0) == (1, True)
    assert process.page.captured(0, 1) == 1


def test_where_nothing_is_kept_no_type_of_the_user_s_has_grown() -> None:
    process = Process()
    process.order()
    process.run_to_the_end()
    assert {name for name in process.grown() if not name.startswith("celery")} <= {"str"}
    assert process.end.problem == ""


def test_without_an_order_a_boundary_does_nothing() -> None:
    process = Process()
    assert (process.run(), process.run(), process.records) == (False, False, [])
    assert not process.census.active
    process.order()
    # A child that starts now takes part in it.
    assert Process(page=process.page).census.active


def test_only_runs_of_the_task_that_was_named_are_counted() -> None:
    process = Process()
    process.order(3, task=TASK)
    assert not process.run(task="app.other")
    assert process.census.active
    while process.census.active:
        process.run(sell)
        process.run(task="app.other")
    order = process.grown()[f"{HERE}.Order"]
    assert (order.growth, order.runs) == (300, 3)


def test_runs_that_begin_beside_others_are_counted_too() -> None:
    process = Process()
    process.order(10, task=TASK)
    while process.census.active:
        process.run(sell)
        process.census.run_starts(TASK)
        sell()
        process.census.run_starts("app.other")
    order = process.grown()[f"{HERE}.Order"]
    assert order.growth == 100 * order.runs >= 1_000


def test_a_census_of_seconds_ends_with_the_first_run_after_them() -> None:
    process = Process()
    process.order(0, seconds=30.0)
    for _ in range(20):
        process.run(sell)
    assert process.records == []
    process.clock.move(31.0)
    process.run_to_the_end(sell)
    order = process.grown()[f"{HERE}.Order"]
    assert (order.growth, order.runs) == (2_000, 20)


def test_a_census_whose_time_is_over_before_the_first_run_is_not_taken() -> None:
    process = Process()
    process.order(seconds=30.0)
    process.clock.move(31.0)
    assert not process.run()
    assert (process.records, process.census.active) == ([], False)


def test_between_two_steps_no_object_is_kept_alive() -> None:
    class Mortal:
        dead = 0

        def __del__(self) -> None:
            Mortal.dead += 1

    process = Process()
    process.order(5)
    while process.census.active:
        SEEN.append(Mortal())
        process.run(sell)
        if len(SEEN) > 400:
            SEEN.clear()
            assert Mortal.dead > 0
            Mortal.dead = 0
    SEEN.clear()


def test_where_a_step_would_take_too_long_the_census_says_so_and_is_not_taken() -> None:
    process = Process()
    process.order(allowance_s=0.000_01)
    process.run_to_the_end(sell)
    assert process.grown() == {}
    assert "a step would hold a run for" in process.end.problem
    assert process.end.problem.endswith("allow a larger max_added_latency than 1e-05")
    # Nobody takes it once more.
    assert Process(page=process.page).run() is False


def test_steps_for_which_there_is_no_time_wait_for_the_next_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = Process()
    process.order(1, allowance_s=0.5)
    monkeypatch.setattr("otel_celery_memory.worker.measuring.census._PACKED", 0.0)
    steps = 0
    while process.census.active:
        steps += process.run(sell)
    # Collect, count, identify and measure at both ends, find, and climb for each row.
    assert steps >= 9
    assert f"{HERE}.Order" in process.grown()


def test_near_a_limit_it_is_refused() -> None:
    process = Process(room=lambda pid, share: 1 << 20)
    process.order()
    process.run_to_the_end(sell)
    assert process.end.problem.endswith("MiB, and a limit of memory is near")
    assert process.grown() == {}


def test_what_a_child_still_shares_with_its_parent_counts_as_what_it_takes() -> None:
    shared = SharedHeap()
    shared.forked()
    options: dict[str, Any] = {"room": lambda pid, share: 1 << 30, "shared": lambda pid: 1 << 30}
    process = Process(collector=Collector(shared), **options)
    process.order(2)
    process.run_to_the_end(sell)
    assert "a limit of memory is near" in process.end.problem
    shared.may_be_copied()
    process = Process(collector=Collector(shared), **options)
    process.order(2)
    process.run_to_the_end(sell)
    assert process.end.problem == ""
    assert 0 <= shared_bytes(os.getpid()) < 1 << 30


@pytest.mark.parametrize("switch", [gc.disable, gc.freeze])
def test_where_the_user_has_disabled_or_frozen_the_collector_nothing_is_collected(
    switch: Callable[[], None],
) -> None:
    process = Process()
    switch()
    try:
        before = [stats["collections"] for stats in gc.get_stats()][2]
        process.order(3)
        process.run_to_the_end(sell)
        assert [stats["collections"] for stats in gc.get_stats()][2] == before
    finally:
        gc.enable()
        gc.unfreeze()
    assert process.end.collected == 0
    assert process.end.problem == ""


def test_a_process_that_ends_meanwhile_says_so_and_the_next_one_takes_it_anew() -> None:
    process = Process()
    process.order()
    for _ in range(3):
        process.run(sell)
    process.census.down()
    assert process.end.problem == "the process ended after 3 runs"
    successor = Process(page=process.page)
    successor.clock = process.clock
    successor.run_to_the_end(sell)
    assert successor.grown()[f"{HERE}.Order"].growth == 1_000
    # And the one after that does not.
    assert not Process(page=process.page).run()


def test_a_time_limit_in_the_middle_is_the_task_s_and_the_census_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def strike(*_: object) -> None:
        raise SoftTimeLimitExceeded

    process = Process()
    process.order()
    monkeypatch.setattr("otel_celery_memory.worker.measuring.census.count_by_type", strike)
    with pytest.raises(SoftTimeLimitExceeded):
        process.run()
    assert (process.census.active, process.run()) == (False, False)


def test_an_order_that_is_half_written_is_read_at_the_next_run() -> None:
    process = Process()
    process.order(1)
    whole = process.page._map[:400]
    process.page._map[40:48] = b"\xff" * 8
    assert (process.run(), process.census.active) == (False, True)
    process.page._map[:400] = whole
    process.run_to_the_end(sell)
    assert process.end.problem == ""
