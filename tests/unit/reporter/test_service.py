"""The reporter's loop on real rings with real processes, until the worker has ended."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest

from otel_celery_memory.ipc.records import (
    MAIN_SLOT,
    NO_SPAN,
    Goodbye,
    ProcessDown,
    ProcessExited,
    ProcessUp,
    TaskStarted,
)
from otel_celery_memory.reporter import service
from tests.processes import wait_until
from tests.unit.examples import started
from tests.unit.fakes import FakeClock
from tests.unit.reporter.bench import Process, Reporter


@pytest.fixture(autouse=True)
def quick_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the loop does each second it does here in a twentieth of one."""
    monkeypatch.setattr(service, "TICK_S", 0.05)
    monkeypatch.setattr(service, "_LINGER_S", 0.1)
    monkeypatch.setattr(service, "_READ_S", 0.01)
    monkeypatch.setattr(service, "_IDLE_READ_S", 0.02)
    monkeypatch.setattr("otel_celery_memory.reporter.state.processes.CLASSIFY_AFTER_NS", 50_000_000)


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """A main process and a child."""
    made = [Process(), Process()]
    yield made
    for each in made:
        each.kill()


@pytest.fixture
def main(processes: list[Process]) -> Process:
    return processes[0]


@pytest.fixture
def child(processes: list[Process]) -> Process:
    return processes[1]


@pytest.fixture
def reporter(main: Process) -> Iterator[Reporter]:
    made = Reporter(main.pid)
    yield made
    made.close()


def task_of(process: Process) -> TaskStarted:
    return started(process.pid, "id-1")


def test_an_orderly_end_is_emitted_for_every_process(
    reporter: Reporter, main: Process, child: Process
) -> None:
    goodbye = ProcessDown(child.pid, 0, 0, 0, 1, None, "shutdown", "")
    reporter.send(ProcessUp(child.pid, 0, 0, 1), goodbye, Goodbye(main.pid, 0))
    reporter.end()
    assert reporter.emitter.exits() == [
        (MAIN_SLOT, "shutdown", None, None),
        (0, "shutdown", None, None),
    ]
    assert len(reporter.emitter.intervals) == 1


def test_the_end_of_the_main_process_without_a_goodbye_is_the_loss_of_the_whole_worker(
    reporter: Reporter, main: Process, child: Process
) -> None:
    reporter.send(ProcessUp(child.pid, 0, 0, 1), task_of(child))
    main.kill()
    reporter.end()
    assert reporter.emitter.exits() == [
        (MAIN_SLOT, "killed", None, None),
        (0, "killed", None, "app.task"),
    ]


def test_the_loss_of_a_child_is_emitted_with_its_task_while_the_worker_goes_on(
    reporter: Reporter, main: Process, child: Process
) -> None:
    reporter.send(ProcessUp(child.pid, 0, 0, 1), task_of(child))
    reporter.wait_for(task_of(child))
    child.kill()
    reporter.send(ProcessExited(child.pid, 0, -9, 0, 0, 0, NO_SPAN, "", ""))
    wait_until("the loss is emitted", lambda: reporter.emitter.ends, 30)
    assert reporter.emitter.exits() == [(0, "killed", 9, "app.task")]
    reporter.send(Goodbye(main.pid, 0))
    reporter.end()
    assert reporter.emitter.exits()[1:] == [(MAIN_SLOT, "shutdown", None, None)]


def test_a_reaped_child_is_gone_although_another_process_has_its_pid(
    reporter: Reporter, child: Process
) -> None:
    # To a reporter that was started again both may come as one.
    reporter.send(ProcessUp(child.pid, 0, 0, 1), task_of(child))
    reporter.send(ProcessExited(child.pid, 0, -9, 0, 0, 0, NO_SPAN, "", ""))
    wait_until("the loss is emitted", lambda: reporter.emitter.ends, 30)
    assert reporter.emitter.exits() == [(0, "killed", 9, "app.task")]


def test_a_child_that_dies_while_the_count_of_oom_kills_rises_was_killed_by_the_kernel(
    reporter: Reporter, child: Process
) -> None:
    reporter.oom_kills = 4
    reporter.send(ProcessUp(child.pid, 0, 0, 1), task_of(child))
    wait_until("the count was read", lambda: reporter.emitter.state.oom.count == 4, 30)
    reporter.oom_kills = 5
    child.kill()
    reporter.send(ProcessExited(child.pid, 0, -9, 0, 0, 0, NO_SPAN, "", ""))
    wait_until("the loss is emitted", lambda: reporter.emitter.ends, 30)
    assert reporter.emitter.exits() == [(0, "oom_kill", 9, "app.task")]
    wait_until("it is sent at once", lambda: reporter.sent == [1], 30)


def test_what_a_process_wrote_before_it_died_is_read_before_its_death_is_noted(
    main: Process, child: Process
) -> None:
    child.kill()
    made = Reporter(main.pid)
    made.send(ProcessUp(child.pid, 0, 0, 1), task_of(child), Goodbye(main.pid, 0))
    made.close()
    assert made.emitter.exits() == [
        (MAIN_SLOT, "shutdown", None, None),
        (0, "killed", None, "app.task"),
    ]


def test_a_main_process_that_goes_on_after_its_goodbye_is_not_waited_for(
    reporter: Reporter, main: Process
) -> None:
    reporter.send(Goodbye(main.pid, 0))
    reporter.end()
    assert reporter.emitter.exits() == [(MAIN_SLOT, "shutdown", None, None)]


def test_a_child_that_goes_on_after_the_main_process_died_is_not_waited_for_long(
    reporter: Reporter, main: Process, child: Process
) -> None:
    reporter.send(ProcessUp(child.pid, 0, 0, 1))
    wait_until("it is known", lambda: child.pid in reporter.emitter.state.processes, 30)
    main.kill()
    reporter.end()
    assert (MAIN_SLOT, "killed", None, None) in reporter.emitter.exits()


def test_after_the_end_of_the_main_process_what_its_children_write_is_read_until_they_end(
    main: Process, child: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_LINGER_S", 60.0)
    made = Reporter(main.pid)
    made.send(ProcessUp(child.pid, 0, 0, 1))
    wait_until("it is known", lambda: child.pid in made.emitter.state.processes, 30)
    main.kill()
    wait_until("the end is noted", lambda: not made.watch.is_running(main.pid), 30)
    made.send(task_of(child))
    made.wait_for(task_of(child))
    child.kill()
    made.end()
    made.close()


def test_garbage_in_a_ring_is_counted_and_what_follows_is_read(
    reporter: Reporter, main: Process
) -> None:
    reporter.writer.send_frame(b"garbage " * 1_000)
    reporter.send(Goodbye(main.pid, 0))
    reporter.end()
    assert sum(reporter.damaged) == 1
    assert Goodbye(main.pid, 0) in reporter.emitter.records


def test_its_heart_beats_at_each_turn_of_its_loop(reporter: Reporter) -> None:
    wait_until("it has begun", lambda: reporter.beats, 30)
    before = len(reporter.beats)
    wait_until("it goes on with nothing to read", lambda: len(reporter.beats) > before + 2, 30)


def test_a_part_that_fails_is_switched_off_and_logged_and_the_rest_goes_on(
    reporter: Reporter, main: Process, child: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("broken")

    waits: list[float] = []
    select = reporter.selector.select

    def noting(timeout: float) -> list[Any]:
        waits.append(timeout)
        return select(timeout)

    monkeypatch.setattr(reporter.limit_watcher, "check", broken)
    off = reporter.breaker.switched_off
    wait_until("it is switched off", lambda: off() == ["limits"], 30)
    monkeypatch.setattr(reporter.selector, "select", noting)
    wait_until("it goes on", lambda: len(waits) >= 3, 30)
    # It waits for records, and does not spin for a check that never happens.
    assert max(waits) > 0
    reporter.send(ProcessUp(child.pid, 0, 0, 1))
    child.kill()
    reporter.send(ProcessExited(child.pid, 0, -9, 0, 0, 0, NO_SPAN, "", ""))
    wait_until("the loss is emitted", lambda: reporter.emitter.ends, 30)
    assert reporter.emitter.exits() == [(0, "killed", 9, None)]


def test_a_flood_of_frames_does_not_keep_it_from_its_ticks(
    reporter: Reporter, main: Process, child: Process
) -> None:
    stop: list[bool] = []

    def flood() -> None:
        while not stop:
            reporter.writer.send(started(main.pid, "id-1", retained_bytes=1))

    writer = Thread(target=flood, daemon=True)
    writer.start()
    child.kill()
    try:
        for record in (
            ProcessUp(child.pid, 0, 0, 1),
            ProcessExited(child.pid, 0, -9, 0, 0, 0, NO_SPAN, "", ""),
        ):
            wait_until("there is room", lambda: reporter.writer.send(record), 30)  # noqa: B023
        wait_until("the loss is emitted", lambda: reporter.emitter.ends, 30)
    finally:
        stop.append(True)
        writer.join(30)
    last = started(main.pid, "id-1", retained_bytes=1)
    wait_until("the flood is read", lambda: reporter.writer.send(last), 60)
    assert reporter.emitter.exits() == [(0, "killed", 9, None)]


def test_the_memory_of_each_process_is_read_from_outside(
    reporter: Reporter, child: Process
) -> None:
    reporter.send(ProcessUp(child.pid, 0, 0, 0))
    wait_until(
        "its RSS is known",
        lambda: getattr(reporter.emitter.state.processes.get(child.pid), "rss_bytes", None),
        30,
    )


def test_sites_are_ranked_at_every_interval_and_at_the_end(main: Process) -> None:
    clock = FakeClock(100.0)
    made = Reporter(main.pid, clock)

    def ranked_twice() -> bool:
        clock.move(61.0)
        made.send(started(main.pid))
        return len(made.emitter.intervals) >= 2

    wait_until("they are ranked twice", ranked_twice, 30)
    clock.move(5.0)
    made.close()
    # No time is left out or counted twice; an interval is never zero, it divides.
    assert round(sum(made.emitter.intervals), 2) == clock() - 100.0
    assert min(made.emitter.intervals[:2]) >= 60.0
