"""What a worker says of being measured, in its log and statistics; settings that cannot be used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from demo.receiver import Receiver
from otel_celery_memory import __version__
from tests.processes import wait_until
from tests.worker.harness import (
    CONTROLLED,
    ROOT,
    Broker,
    Start,
    Worker,
    measured,
    wait_measured,
    wait_restarted,
    worker_environ,
)

CELERY = str(Path(sys.executable).parent / "celery")


def ours(worker: Worker) -> list[str]:
    """What is said at INFO, without the time."""
    mark = "INFO/MainProcess] otel_celery_memory: "
    return [line.partition(mark)[2] for line in worker.log().splitlines() if mark in line]


def test_a_worker_says_once_how_it_is_measured_and_at_its_end_how_much_was(
    start: Start, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=2"]) as worker:
        for _ in range(3):
            worker.run("noop")
        reporter = worker.reporter()
        worker.stop()
    first, last = ours(worker)
    assert first.startswith(
        f"{__version__} measures the tasks of this worker: sent to {receiver.endpoint} "
        f"(http/protobuf) every 0.5 s by the reporter, process {reporter}; allocations are traced "
        "within 0.01 of the tasks' CPU time and 0.25 s a run (1 frame)"
    )
    assert last == "3 tasks measured, 0 records dropped"


def test_the_count_at_the_end_says_since_when_if_the_reporter_was_started_again(
    start: Start, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=1"]) as worker:
        worker.run("noop")
        wait_measured(receiver.received, {"noop": 1})
        former = worker.reporter()
        assert former is not None
        os.kill(former, 9)
        wait_restarted(worker, former, receiver.received)
        worker.run("noop")
        worker.stop()
    assert "measured since the reporter was last started again, " in ours(worker)[-1]


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_worker_without_a_reporter_says_the_same(start: Start, pool: str) -> None:
    environ = {"OTEL_CELERY_MEMORY_DELIVERY": "inprocess", "OTEL_LOGS_EXPORTER": "none"}
    with start(arguments=[f"--pool={pool}", "--concurrency=1"], environ=environ) as worker:
        worker.run("noop")
        worker.stop()
    first, last = ours(worker)
    assert ", events to nowhere, every 0.5 s by the processes that run them; " in first
    assert last == "1 task measured, 0 records dropped"


def test_the_statistics_of_a_worker_have_a_section_of_memory(
    start: Start, broker: Broker, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=2"], environ=CONTROLLED) as worker:
        worker.run("keep", 1 << 20)
        wait_measured(receiver.received, {"keep": 1})

        def section() -> dict[str, object] | None:
            found = worker.command("stats")["memory"]
            return found if found.get("tasks_measured") else None

        found = wait_until("the view shows the run", section, 30)
        worker.stop()
    assert found is not None
    assert found["version"] == __version__
    assert str(found["exported_by"]).startswith("the reporter, process ")
    assert (found["tracing"], found["tasks_measured"], found["processes"]) == ("budget", 1, 3)
    assert 10 << 20 < int(str(found["largest_rss"])) < int(str(found["rss"]))
    assert found["lost_processes"] == 0


def test_a_worker_whose_sdk_is_disabled_says_so_to_who_asks(start: Start) -> None:
    environ = {**CONTROLLED, "OTEL_SDK_DISABLED": "true"}
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        worker.run("noop")
        answer = worker.command("memory")
        worker.stop()
    assert answer == {"error": "OTEL_SDK_DISABLED=true: nothing of this worker is measured"}
    assert ours(worker) == []


def test_variables_that_are_no_settings_are_said_with_the_nearest_that_is(start: Start) -> None:
    environ = {"OTEL_CELERY_MEMORY_TRACE": "off"}
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        worker.run("noop")
        worker.stop()
    assert (
        "OTEL_CELERY_MEMORY_TRACE is no setting, and is ignored; "
        "did you mean OTEL_CELERY_MEMORY_TRACING?"
    ) in worker.log()


def run_celery(broker: Broker, receiver: Receiver, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {"OTEL_CELERY_MEMORY_FRAMES": "many"}
    return subprocess.run(
        [CELERY, "--app=tests.worker.app", *words],
        env=worker_environ(broker, receiver.endpoint, environ),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


UNUSABLE = (
    "otel_celery_memory: OTEL_CELERY_MEMORY_FRAMES='many' cannot be used: "
    "it must be an integer from 1 to 25"
)


def test_with_a_setting_that_cannot_be_used_no_worker_starts_and_the_error_is_clear(
    broker: Broker, receiver: Receiver
) -> None:
    done = run_celery(broker, receiver, "worker", "--concurrency=1")
    assert done.returncode == 1
    assert f"\nError: {UNUSABLE}\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_with_a_setting_that_cannot_be_used_a_process_that_is_no_worker_goes_on(
    broker: Broker, receiver: Receiver
) -> None:
    done = run_celery(broker, receiver, "report")
    assert done.returncode == 0, done.stderr
    assert f"{UNUSABLE}; the default 1 is used here, and no worker starts" in done.stderr
    script = "import tests.worker.app as m; print(m.app.main); m.noop.apply_async"
    web = subprocess.run(
        [sys.executable, "-c", script],
        env=worker_environ(broker, receiver.endpoint, {"OTEL_CELERY_MEMORY_FRAMES": "many"}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (web.returncode, web.stdout) == (0, "tests\n")


def test_a_worker_that_is_made_by_a_program_raises_the_error(
    broker: Broker, receiver: Receiver
) -> None:
    script = (
        "import tests.worker.app as m\n"
        "from otel_celery_memory import SettingError\n"
        "try:\n    m.app.Worker(pool_cls='solo')\n"
        "except SettingError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=worker_environ(broker, receiver.endpoint, {"OTEL_CELERY_MEMORY_FRAMES": "many"}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout == f"{UNUSABLE}\n", done.stderr
    assert measured(receiver.received) == {}
