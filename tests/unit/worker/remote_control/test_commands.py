"""Remote control: accepted and refused commands, and their messages."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from otel_celery_memory.ipc.commands import Balance, Commands
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.status_page import STATUS_BYTES, StatusPage
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.remote_control import commands
from otel_celery_memory.worker.remote_control.validation import (
    COMMANDS_AT_ONCE,
    RateLimit,
    Wanted,
    WorkerControl,
    begin_capture,
    switch_tracing,
)
from tests.unit.fakes import FakeClock

STATE: Any = None
NOT_READY = {"error": "this worker is not instrumented by otel_celery_memory, or not ready yet"}
AMOUNTS = "is neither runs from 1 to 10000 nor seconds from 1s to 600s"
ALLOWED = {"error": "max_added_latency is from 0.01 to 60 seconds"}


@dataclass
class Worker:
    """A worker under remote control."""

    settings: Settings = field(default_factory=Settings)
    page: ControlPage = field(default_factory=ControlPage)
    view: dict[str, Any] | None = None
    running: bool = True
    woken: int = 0

    def attach(self) -> None:
        commands.attach(
            WorkerControl(
                self.settings, self.page, lambda: self.view, lambda: self.running, self._wake
            )
        )

    def _wake(self) -> None:
        self.woken += 1


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    made.attach()
    yield made
    commands.detach()


def requested(worker: Worker) -> tuple[int, int, bool, float]:
    """The capture on the page: number, runs, by signal, allowance."""
    found = worker.page.commands()
    return found.capture, found.runs, found.by_signal, found.allowance_s


def test_ten_runs_of_each_process_are_captured_by_default(worker: Worker) -> None:
    assert commands.memory_capture(STATE) == {
        "ok": "capture 1 begins: the next 10 runs of each process, within 120 s; no "
        "capture_directory is set; `celery inspect memory` shows when it is complete"
    }
    assert (requested(worker), worker.woken) == ((1, 10, False, 1.0), 1)


def test_what_runs_for_some_seconds_is_captured_and_written_where_the_user_said(
    worker: Worker, tmp_path: Path
) -> None:
    directory = tmp_path / "captures"
    worker.settings = Settings(capture_directory=str(directory))
    worker.attach()
    assert commands.memory_capture(STATE, "30s", 0.5) == {
        "ok": f"capture 1 begins: the runs of the next 30 s; it will be written to {directory}; "
        "`celery inspect memory` shows when it is complete"
    }
    assert (requested(worker), directory.is_dir()) == ((1, 0, False, 0.5), True)


@pytest.mark.parametrize(
    ("amount", "runs"),
    [("1", 1), ("10000", 10_000), (" 7 ", 7), (5, 5), ("1s", 0), ("600S", 0), ("2.5s", 0)],
)
def test_amounts_that_can_be_captured(worker: Worker, amount: Any, runs: int) -> None:
    assert "ok" in commands.memory_capture(STATE, amount)
    assert worker.page.commands().runs == runs


@pytest.mark.parametrize(
    "amount",
    [
        *("0", "-1", "10001", "1.5", "", "s", "0.5s", "601s", "nans", "infs", "-5s", "ten", "1e3"),
        *(None, [], {"a": 1}, 2.0, "9" * 6_000, "\0"),
    ],
)
def test_amounts_that_cannot_are_refused_in_one_line(worker: Worker, amount: Any) -> None:
    answer = commands.memory_capture(STATE, amount)
    assert list(answer) == ["error"]
    assert answer["error"].endswith(AMOUNTS)
    assert len(answer["error"]) < 150
    assert worker.page.commands() == Commands()


@pytest.mark.parametrize("latency", [0, -1, 60.1, float("nan"), float("inf"), "much", None, [1]])
def test_a_latency_out_of_bounds_is_refused(worker: Worker, latency: Any) -> None:
    assert commands.memory_capture(STATE, "10", latency) == ALLOWED
    assert worker.page.commands() == Commands()


def test_a_census_is_of_the_next_ten_runs_within_the_latency_of_the_settings(
    worker: Worker,
) -> None:
    assert commands.memory_census(STATE) == {
        "ok": "census 1 begins: objects that are there after the next 10 runs of each process, "
        "within 120 s, and were not before; `celery inspect memory` shows when it is complete"
    }
    found = worker.page.commands()
    assert (found.census, found.capture, found.runs, found.allowance_s) == (1, 0, 10, 0.25)
    assert worker.woken == 0


def test_runs_of_one_task_are_captured_and_counted_by_its_name(worker: Worker) -> None:
    answer = commands.memory_capture(STATE, "5", "default", "shop.build_report")
    assert "the next 5 runs of shop.build_report of each process, within 120 s" in answer["ok"]
    found = worker.page.commands()
    assert (found.capture, found.task, found.allowance_s) == (1, "shop.build_report", 1.0)
    worker.view = {"captures": [{"number": 1, "state": "complete"}]}
    answer = commands.memory_census(STATE, "30s", 2, "shop.build_report")
    assert "the runs of shop.build_report of the next 30 s" in answer["ok"]
    found = worker.page.commands()
    assert (found.census, found.capture, found.task) == (2, 0, "shop.build_report")
    assert found.allowance_s == 2.0


@pytest.mark.parametrize("task", [None, 7, ["a"], "a\nb", "\ud800", "\0"])
def test_what_is_no_task_s_name_is_refused(worker: Worker, task: Any) -> None:
    refused = {"error": "the task is its name, such as shop.build_report"}
    assert commands.memory_census(STATE, "10", "default", task) == refused
    assert commands.memory_capture(STATE, "10", "default", task) == refused
    assert worker.page.commands() == Commands()


def test_a_task_s_name_that_is_too_long_for_the_page_is_refused(worker: Worker) -> None:
    refused = {"error": "the task's name is longer than 255 bytes"}
    assert commands.memory_census(STATE, "10", "default", "ä" * 128) == refused
    assert "ok" in commands.memory_census(STATE, "10", "default", "ä" * 127)


def test_a_capture_of_all_that_is_alive_is_of_no_single_task(worker: Worker) -> None:
    worker.settings = Settings(tracing="always")
    worker.attach()
    answer = commands.memory_capture(STATE, "10", "default", "shop.build_report")
    assert "of no single task" in answer["error"]
    assert "ok" in commands.memory_census(STATE, "10", "default", "shop.build_report")


def test_one_capture_or_census_is_taken_at_a_time(worker: Worker) -> None:
    commands.memory_census(STATE, "30s")
    refused = {"error": "census 1 is being taken, for 30 s at most"}
    assert commands.memory_census(STATE) == refused
    assert commands.memory_capture(STATE) == refused
    assert "tracing is off" in commands.memory_tracing(STATE, "off")["ok"]
    assert worker.page.commands().census == 1
    worker.view = {"captures": [{"number": 1, "state": "complete"}]}
    assert commands.memory_capture(STATE)["ok"].startswith("capture 2 begins")
    assert worker.page.commands().census == 0


def test_a_worker_that_is_shutting_down_begins_no_census(worker: Worker) -> None:
    worker.running = False
    assert commands.memory_census(STATE) == {"error": "the worker is shutting down"}


def test_a_second_capture_is_refused_while_the_first_is_being_taken(worker: Worker) -> None:
    commands.memory_capture(STATE, "30s")
    answer = commands.memory_capture(STATE, "10")
    assert answer == {"error": "capture 1 is being taken, for 30 s at most"}
    assert (requested(worker)[0], worker.woken) == (1, 1)


@pytest.mark.parametrize(
    ("captures", "number"),
    [
        ([{"number": 1, "state": "running"}], 1),
        ([], 1),
        ([{"number": 1, "state": "complete"}], 2),
        ([{"number": 1, "state": "failed"}], 2),
    ],
)
def test_the_next_capture_may_begin_when_the_reporter_says_that_one_is_complete(
    worker: Worker, captures: list[dict[str, Any]], number: int
) -> None:
    commands.memory_capture(STATE, "30s")
    worker.view = {"captures": captures}
    commands.memory_capture(STATE, "30s")
    assert requested(worker)[0] == number


def test_the_next_capture_may_begin_when_the_time_of_one_is_over(worker: Worker) -> None:
    worker.page.set_commands(Commands("off", 6, 0, False, 1e-9, 1.0))
    commands.memory_capture(STATE, "3")
    assert worker.page.commands() == replace(
        Commands("off", 7, 3, False, 0.0, 1.0), until_s=worker.page.commands().until_s
    )


def test_a_worker_that_is_shutting_down_begins_no_capture(worker: Worker) -> None:
    worker.running = False
    assert commands.memory_capture(STATE) == {"error": "the worker is shutting down"}
    assert (worker.page.commands(), worker.woken) == (Commands(), 0)


def test_with_an_unusable_directory_a_capture_is_refused(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name, why in {
        "link": "is a symbolic link",
        "open": "can be written to by others (mode 0777): chmod it to 0700",
        "no/where": "cannot be made: the directory above it does not exist",
    }.items():
        worker.settings = Settings(capture_directory=f"{tmp_path}/{name}")
        worker.attach()
        error = f"capture directory '{tmp_path}/{name}' {why}"
        assert commands.memory_capture(STATE) == {"error": error}
    assert worker.page.commands() == Commands()


@pytest.mark.parametrize("mode", ["budget", "off"])
def test_the_mode_of_tracing_changes_and_a_capture_goes_on(worker: Worker, mode: str) -> None:
    commands.memory_capture(STATE)
    before = worker.page.commands()
    assert commands.memory_tracing(STATE, mode) == {
        "ok": f"tracing is {mode} from each process's next task on"
    }
    assert worker.page.commands() == replace(before, mode=mode)


@pytest.mark.parametrize(
    ("before", "mode"), [("budget", "always"), ("always", "off"), ("always", "budget")]
)
def test_a_capture_of_runs_does_not_become_one_of_the_heap_nor_the_other_way_round(
    worker: Worker, before: str, mode: str
) -> None:
    worker.settings = Settings(tracing=before)
    worker.attach()
    commands.memory_capture(STATE)
    given = worker.page.commands()
    why = f"capture 1 is being taken, for 120 s at most: switch from {before} to {mode} when it is"
    assert commands.memory_tracing(STATE, mode) == {"error": f"{why} complete"}
    assert worker.page.commands() == given
    assert "ok" in commands.memory_tracing(STATE, before)
    worker.view = {"captures": [{"number": 1, "state": "complete"}]}
    assert "ok" in commands.memory_tracing(STATE, mode)
    assert worker.page.commands() == replace(given, mode=mode)


@pytest.mark.parametrize("mode", ["", "on", "ALWAYS", None, 3, ["off"]])
def test_other_modes_are_refused(worker: Worker, mode: Any) -> None:
    answer = commands.memory_tracing(STATE, mode)
    assert answer == {"error": "the mode is one of budget, always, off"}
    assert worker.page.commands() == Commands()


def test_the_view_is_shown_as_text_and_as_data(worker: Worker) -> None:
    assert commands.memory(STATE) == {
        "error": "there is nothing to show yet: the reporter is starting"
    }
    tracing = {"mode": "budget", "task_seconds": 20.0, "spent_seconds": 0.1, "aborted": 2}
    worker.view = {"tracing": tracing}
    cost = "tracing budget: 0.10 s of 20.0 s of task time in ten minutes"
    assert commands.memory(STATE) == {"ok": f"{cost}, 2 runs aborted", "memory": worker.view}
    # What may be spent in any ten minutes, 0.6 s, is less than 1 % of that.
    tracing["task_seconds"] = 80.0
    assert commands.memory(STATE)["ok"] == (
        "tracing budget: 0.10 s of 80.0 s of task time in ten minutes (0.12%), 2 runs aborted"
    )


@pytest.mark.parametrize(
    "command",
    [
        *(commands.memory, commands.memory_capture, commands.memory_census),
        lambda state: commands.memory_tracing(state, "off"),
    ],
    ids=["memory", "memory_capture", "memory_census", "memory_tracing"],
)
def test_a_worker_that_is_not_measured_or_has_remote_control_off_answers_with_an_error(
    worker: Worker, command: Any
) -> None:
    worker.settings = Settings(remote_control=False)
    worker.attach()
    assert command(STATE) == {
        "error": "remote control of otel_celery_memory is switched off (remote_control)"
    }
    commands.detach()
    assert command(STATE) == NOT_READY
    assert worker.page.commands() == Commands()


def test_commands_that_come_too_often_are_refused_and_change_nothing(worker: Worker) -> None:
    worker.view = {}
    clock = FakeClock(100.0)
    commands.attach(replace(commands._attached[0], rate=RateLimit(clock_s=clock)))
    answers = [commands.memory(STATE) for _ in range(COMMANDS_AT_ONCE)]
    assert all("ok" in answer for answer in answers)
    refused = {"error": "too many commands within a short time: ask again in a second"}
    assert commands.memory(STATE) == refused
    assert commands.memory_tracing(STATE, "always") == refused
    assert commands.memory_capture(STATE) == refused
    assert worker.page.commands() == Commands()
    clock.move(1.0)
    assert "ok" in commands.memory_tracing(STATE, "always")


def test_what_is_answered_is_bounded_however_much_the_reporter_knows(worker: Worker) -> None:
    page = StatusPage()
    assert not page.write({"tasks": ["x" * STATUS_BYTES]})
    unknown = dict.fromkeys(("unique", "unique_at_start", "copied", "open_files", "malloc_free"))
    row = {"slot": "0", "pid": 1, "rss": 1, **unknown, "task": "t" * 512}
    assert page.write({"processes": [row] * 200})
    worker.view = page.read()
    answer = commands.memory(STATE)
    assert len(json.dumps(answer["memory"])) < 2 * STATUS_BYTES
    assert len(answer["ok"].splitlines()) < 20


def test_a_capture_changes_no_balance(worker: Worker) -> None:
    commands.memory_capture(STATE)
    assert worker.page.load(0) == Balance()


def test_commands_of_two_threads_at_once_are_both_carried_out(worker: Worker) -> None:
    """The event loop carries out a command while a signal's thread begins a capture."""
    control = commands._attached[0]
    read = worker.page.commands
    meanwhile: list[threading.Thread] = []

    def read_while_switching() -> Commands:
        found = read()
        if control.lock.acquire(False):
            control.lock.release()
        elif not meanwhile:
            meanwhile.append(threading.Thread(target=switch_tracing, args=(control, "off")))
            meanwhile[0].start()
            meanwhile[0].join(0.05)
        return found

    worker.page.commands = read_while_switching  # type: ignore[method-assign]
    begin_capture(control, Wanted(0, 30.0, 1.0), signal=True)
    meanwhile[0].join()
    assert (read().mode, read().capture) == ("off", 1)
