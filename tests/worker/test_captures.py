"""Captures that a person asks for, and what `celery inspect memory` says, in real workers."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import celery
import pytest

from demo.receiver import Receiver
from otel_celery_memory.captures.format import load_capture
from otel_celery_memory.settings import TRACING_FLOOR_S, Settings
from otel_celery_memory.worker.remote_control.validation import RUNS_WITHIN_S
from tests.processes import wait_until
from tests.worker.harness import CONTROLLED, Broker, Start, Worker
from tests.worker.test_budget import APP, LEAK_BYTES, TASK, line_of

BUDGET = 0.5
MAY_BE_SPENT_S = max(Settings().max_added_latency, TRACING_FLOOR_S)
POOLS = (["--concurrency=2"], ["--pool=solo"], ["--pool=threads", "--concurrency=2"])


def run_many(worker: Worker, runs: int) -> None:
    for result in [worker.send("churn_and_keep", LEAK_BYTES) for _ in range(runs)]:
        result.get(timeout=300)


def captured(directory: Path, count: int) -> list[Path]:
    """The captures written so far, oldest first, once there are so many."""
    found: list[Path] = []

    def there() -> bool:
        found[:] = sorted(
            directory.glob("*.capture.json.gz"), key=lambda path: path.stat().st_mtime
        )
        return len(found) >= count

    wait_until(f"{count} captures in {directory}", there, 30)
    return found


@pytest.mark.parametrize("pool", POOLS, ids=["prefork", "solo", "threads"])
def test_inspect_memory_shows_processes_tasks_and_sites_in_every_pool(
    start: Start, broker: Broker, pool: list[str]
) -> None:
    # So much that windows follow one another: the first may have a few runs only.
    environ = {**CONTROLLED, "OTEL_CELERY_MEMORY_OVERHEAD_BUDGET": str(BUDGET)}
    line = f"app.py:{line_of('leaks in churn_and_keep')}"
    with start(arguments=pool, environ=environ) as worker:

        def leads() -> bool:
            run_many(worker, 100)
            view = worker.command("memory").get("memory") or {}
            names = [site["name"] for site in view.get("sites") or [] if view.get("tasks")]
            # In a pool of threads, what other threads do may be more than a kibibyte a run.
            found = names if pool == POOLS[2] else names[:1]
            return any(name.endswith(line) for name in found)

        # A new interval begins each minute; the command line may take longer than is left of one.
        wait_until("a view with tasks and the line that leaks", leads, 300)
        text, answer = worker.remote("inspect", "memory", broker=broker)
        view = answer["memory"]
        slots = {process["slot"] for process in view["processes"]}
        assert slots == ({"main", "0", "1"} if pool == POOLS[0] else {"main"})
        assert view["main_pid"] == worker.pid
        assert all(process["rss"] > 1 << 20 for process in view["processes"])
        by_task = {task["name"]: task for task in view["tasks"]}
        if pool != POOLS[2]:
            assert by_task[TASK]["runs"] > 0
            assert by_task[TASK]["retained_per_run"] is not None
        assert view["tracing"]["mode"] == "budget"
        assert view["switched_off"] == []
        assert "retained/run" in text
        assert "tracing budget" in text
        tracing = view["tracing"]
        # One slowed run is much of little task time: a share is shown from a second on.
        found = re.search(r"of ([\d.,]+) s of task time in ten minutes( \([\d.]+%\))?", text)
        assert found is not None
        shown_s, share_from_s = float(found[1].replace(",", "")), MAY_BE_SPENT_S / BUDGET
        # Shown with a digit: where it is as much, it may be a little less.
        assert bool(found[2]) is (shown_s > share_from_s) or shown_s == round(share_from_s, 1)
        # Not less than the tasks': a worker that is idle may spend a little on tracing, too.
        assert tracing["spent_seconds"] > 0
        assert tracing["task_seconds"] > 0


def test_the_command_line_accepts_the_commands_and_lists_them(broker: Broker) -> None:
    environ = {**os.environ, **broker.environ(), **CONTROLLED, "COLUMNS": "1000"}
    commands = {
        "inspect": ["memory"],
        "control": ["memory_capture", "memory_census", "memory_tracing"],
    }
    # From 5.7 on commands are listed apart; before, the usage has them.
    option = "--list" if celery.VERSION >= (5, 7) else "--help"
    for group, words in commands.items():
        command = [sys.executable, "-m", "celery", "--app=tests.worker.app", group, option]
        command_result = subprocess.run(
            command, env=environ, capture_output=True, text=True, check=False
        )
        shown = "".join(command_result.stdout.split())
        assert all(word in shown for word in words), command_result.stdout + command_result.stderr


@pytest.mark.parametrize("runs", [100, pytest.param(1_000, marks=pytest.mark.long)])
def test_two_captures_around_many_runs_name_the_line_and_the_bytes(
    start: Start, broker: Broker, tmp_path: Path, runs: int
) -> None:
    directory = tmp_path / "captures"
    environ = {
        **CONTROLLED,
        "OTEL_CELERY_MEMORY_CAPTURE_DIRECTORY": str(directory),
        "OTEL_CELERY_MEMORY_TRACING": "always",
    }
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        run_many(worker, 50)
        worker.remote("control", "memory_capture", "1", broker=broker)
        run_many(worker, 1)
        captured(directory, 1)
        run_many(worker, runs - 1)
        worker.command("memory_capture", amount="1")
        run_many(worker, 1)
        before, after = captured(directory, 2)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in directory.iterdir())
    assert len(list(directory.glob("*.pprof.gz"))) == 2
    command = [sys.executable, "-m", "otel_celery_memory.cli", "diff", "--json"]
    command_result = subprocess.run(
        [*command, str(before), str(after)], capture_output=True, text=True, check=True
    )
    first = json.loads(command_result.stdout)["top"][0]
    assert first["name"].endswith(f"app.py:{line_of('leaks in churn_and_keep')}")
    # A bytearray of 57 bytes and its buffer in each run.
    assert first["change"]["size_bytes"] == pytest.approx(runs * (LEAK_BYTES + 57), rel=0.05)


def test_a_capture_of_runs_traces_them_whatever_the_budget_says(
    start: Start, broker: Broker, receiver: Receiver, tmp_path: Path
) -> None:
    environ = {
        **CONTROLLED,
        "OTEL_CELERY_MEMORY_CAPTURE_DIRECTORY": str(tmp_path),
        "OTEL_CELERY_MEMORY_TRACING": "off",
    }
    tmp_path.chmod(0o700)
    with start(arguments=["--concurrency=2"], environ=environ) as worker:
        run_many(worker, 20)
        text, _ = worker.remote("control", "memory_capture", "5", broker=broker)
        assert "capture 1 begins" in text
        again, _ = worker.remote("control", "memory_capture", "5", broker=broker)
        assert "capture 1 is being taken" in again
        run_many(worker, 100)
        capture = load_capture(captured(tmp_path, 1)[0].read_bytes())
    assert (capture.kind, capture.runs) == ("runs", {TASK: 10})
    first = max(capture.sites, key=lambda site: site.size_bytes)
    assert (first.path, first.line) == (str(APP), line_of("leaks in churn_and_keep"))
    assert first.size_bytes == pytest.approx(10 * (LEAK_BYTES + 57), rel=0.1)
    events = [e for e in receiver.received.events if e.name == "celery.memory.snapshot"]
    assert [e.attributes["celery.memory.snapshot.runs"] for e in events] == [10]


def test_a_capture_of_one_task_s_runs_traces_no_other(
    start: Start, broker: Broker, tmp_path: Path
) -> None:
    environ = {
        **CONTROLLED,
        "OTEL_CELERY_MEMORY_CAPTURE_DIRECTORY": str(tmp_path),
        "OTEL_CELERY_MEMORY_TRACING": "off",
    }
    tmp_path.chmod(0o700)
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        text, _ = worker.remote(
            "control", "memory_capture", "5", "0.5", "--task", TASK, broker=broker
        )
        assert f"capture 1 begins: the next 5 runs of {TASK} of each process" in text
        for _ in range(8):
            worker.run("noop")
            run_many(worker, 1)
        capture = load_capture(captured(tmp_path, 1)[0].read_bytes())
    assert (capture.kind, capture.runs) == ("runs", {TASK: 5})


def test_a_capture_of_more_runs_than_a_child_lives_for_is_complete_when_each_place_has_them(
    start: Start, tmp_path: Path
) -> None:
    environ = {
        **CONTROLLED,
        "OTEL_CELERY_MEMORY_CAPTURE_DIRECTORY": str(tmp_path),
        "OTEL_CELERY_MEMORY_TRACING": "off",
    }
    tmp_path.chmod(0o700)
    recycled = ["--concurrency=2", "--max-tasks-per-child=2"]
    with start(arguments=recycled, environ=environ) as worker:
        worker.command("memory_capture", amount="5")
        asked_s = time.monotonic()
        while not list(tmp_path.glob("*.capture.json.gz")):
            assert time.monotonic() - asked_s < RUNS_WITHIN_S / 2, (
                "it waits for its time to be over"
            )
            run_many(worker, 4)
        capture = load_capture(captured(tmp_path, 1)[0].read_bytes())
    assert (capture.kind, capture.runs) == ("runs", {TASK: 10})
    assert [process.slot for process in capture.processes] == ["0", "1"]


def test_a_capture_of_runs_stays_one_whoever_wants_all_traced_meanwhile(
    start: Start, tmp_path: Path
) -> None:
    environ = {**CONTROLLED, "OTEL_CELERY_MEMORY_CAPTURE_DIRECTORY": str(tmp_path)}
    tmp_path.chmod(0o700)
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        worker.command("memory_capture", amount="4")
        run_many(worker, 2)
        refused = worker.command("memory_tracing", mode="always")["error"]
        assert "switch from budget to always when it is complete" in refused
        run_many(worker, 3)
        capture = load_capture(captured(tmp_path, 1)[0].read_bytes())
        # The reporter may have the capture before the main process knows that it is complete.
        wait_until(
            "tracing is switched over",
            lambda: (
                "tracing is always" in worker.command("memory_tracing", mode="always").get("ok", "")
            ),
            20,
        )
        assert worker.run("is_traced") is True
    assert (capture.kind, capture.runs) == ("runs", {TASK: 4})


def test_a_directory_that_is_a_link_or_everybodys_is_refused_and_tasks_go_on(
    start: Start, broker: Broker, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    environ = {**CONTROLLED, "OTEL_CELERY_MEMORY_CAPTURE_DIRECTORY": str(link)}
    with start(environ=environ) as worker:
        text, _ = worker.remote("control", "memory_capture", "1", broker=broker)
        assert "symbolic link" in text
        link.unlink()
        link.mkdir(mode=0o777)
        link.chmod(0o777)
        refused = worker.command("memory_capture", amount="1")["error"]
        assert "written to by others" in refused
        run_many(worker, 10)
    assert list(link.iterdir()) == []


def test_a_signal_to_the_main_process_captures_the_task_that_is_running(
    start: Start, receiver: Receiver, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    environ = {
        "OTEL_CELERY_MEMORY_CAPTURE_DIRECTORY": str(tmp_path),
        "OTEL_CELERY_MEMORY_CAPTURE_SIGNAL": "true",
        "OTEL_CELERY_MEMORY_TRACING": "off",
    }
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        running = worker.send("hoard", 200, 0.02)
        wait_until("the task runs", lambda: worker.in_task("hoard"), 20)
        os.kill(worker.pid, signal.SIGURG)
        assert running.get(timeout=300) == 200
        worker.stop()  # what a capture has by then is all it gets
        capture = load_capture(captured(tmp_path, 1)[0].read_bytes())
    assert (capture.kind, capture.reason) == ("partial", "SIGURG")
    assert capture.runs == {"tests.worker.app.hoard": 1}
    places = {(site.path, site.line) for site in capture.sites}
    assert (str(APP), line_of("what hoard keeps")) in places


def test_tracing_can_be_switched_at_run_time(start: Start, broker: Broker) -> None:
    with start(arguments=["--concurrency=1"], environ=CONTROLLED) as worker:
        run_many(worker, 1)
        assert worker.run("is_traced") is False
        worker.remote("control", "memory_tracing", "always", broker=broker)
        run_many(worker, 1)
        assert worker.run("is_traced") is True
        worker.command("memory_tracing", mode="off")
        run_many(worker, 1)
        assert worker.run("is_traced") is False
        text, _ = worker.remote("control", "memory_tracing", "sometimes", broker=broker)
        assert "the mode is one of" in text


def test_remote_control_that_is_switched_off_says_so(start: Start, broker: Broker) -> None:
    environ = {**CONTROLLED, "OTEL_CELERY_MEMORY_REMOTE_CONTROL": "false"}
    with start(environ=environ) as worker:
        text, answer = worker.remote("inspect", "memory", broker=broker)
        assert "switched off" in text
        assert "error" in answer


def test_client_methods_of_an_app_ask_and_command_its_workers(start: Start) -> None:
    # As the module of the app does: the import brings the methods.
    assert importlib.import_module("otel_celery_memory").CeleryMemoryInstrumentor
    with start(arguments=["--concurrency=1"], environ=CONTROLLED) as worker:
        worker.run("noop")
        control = worker.client.control
        answer = wait_until(
            "it answers with a view",
            lambda: control.inspect([worker.node], timeout=5).memory()[worker.node].get("ok"),
            30,
        )
        assert "tracing budget" in answer

        def taken() -> bool:
            # The view was asked for so often that a command may have to wait a second.
            (reply,) = control.memory_capture(1, destination=[worker.node], reply=True, timeout=10)
            answer = reply[worker.node]
            assert "ok" in answer or "ask again in a second" in answer["error"], answer
            return "ok" in answer

        wait_until("a capture begins", taken, 30)
        worker.stop()
