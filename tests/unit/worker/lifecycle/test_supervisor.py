"""One reporter a worker: started with what it needs, started again after pauses, ended in time."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from otel_celery_memory.probes.limits import oom_kill_counter
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.lifecycle.supervisor import ReporterProcess, Supervisor
from otel_celery_memory.worker.record_writer import RecordWriter
from tests.unit.fakes import FakeClock

SETTINGS = Settings.load({"sites_top": 3, "sites_include": ["*/app/*"]}, {})
PYTHON = sys.executable

Start = Callable[[str], Supervisor]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000.0)


@pytest.fixture
def pipe() -> Iterator[RecordWriter]:
    made = RecordWriter()
    yield made
    made.close()


@pytest.fixture
def start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipe: RecordWriter, clock: FakeClock
) -> Iterator[Start]:
    """Starts a supervisor whose reporter is this Python code; what still runs is ended."""
    made: list[Supervisor] = []

    def start_with(code: str) -> Supervisor:
        (tmp_path / "reporter.py").write_text(code)
        program = tmp_path / "python"
        # The program that starts it is the real one.
        program.write_text(
            f'#!/bin/sh\n[ "$1" = -I ] && exec {PYTHON} "$@"\n'
            f'exec {PYTHON} {tmp_path}/reporter.py "$@"\n'
        )
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        supervisor = Supervisor(pipe, SETTINGS, "celery@box", 2_048, "/w.log", clock)
        made.append(supervisor)
        supervisor.start()
        return supervisor

    yield start_with
    for supervisor in made:
        supervisor.stop(0)


def wait_for_end(supervisor: Supervisor) -> None:
    """Return when the reporter has ended."""
    assert supervisor.pid is not None
    assert ReporterProcess(supervisor.pid).wait(60)


REPORT_ARGUMENTS = """
import json, os, sys
seen = {"argv": sys.argv[1:], "sid": os.getsid(0), "pid": os.getpid(),
        "open": sorted(int(f) for f in os.listdir("/proc/self/fd")),
        "stdin": os.readlink("/proc/self/fd/0"), "frames": os.environ["OTEL_CELERY_MEMORY_FRAMES"]}
open(os.path.join(os.path.dirname(__file__), "seen.json"), "w").write(json.dumps(seen))
"""


def test_the_reporter_gets_its_worker_s_name_the_rings_and_the_pages_and_nothing_else(
    start: Start, pipe: RecordWriter, tmp_path: Path
) -> None:
    supervisor = start(REPORT_ARGUMENTS)
    wait_for_end(supervisor)
    rings, page, status, journal = pipe.descriptors()
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["argv"] == [
        "-m",
        "otel_celery_memory.reporter",
        "--worker=celery@box",
        f"--main-pid={os.getpid()}",
        f"--rings={rings}",
        f"--page={page}",
        f"--status={status}",
        f"--journal={journal}",
        "--restarts=0",
        "--max-memory-kib=2048",
        "--log-file=/w.log",
        f"--oom-kills={oom_kill_counter(os.getpid())()}",
    ]
    assert (seen["pid"], seen["sid"]) == (supervisor.pid, supervisor.pid)
    assert (seen["stdin"], seen["frames"]) == ("/dev/null", "1")
    assert {0, 1, 2, rings, page, status, journal} <= set(seen["open"])


def test_a_reporter_that_runs_is_left_alone(start: Start) -> None:
    supervisor = start("import time; time.sleep(600)")
    pid = supervisor.pid
    assert (supervisor.check(), supervisor.pid, supervisor.restarts) == (False, pid, 0)


def test_a_reporter_that_died_is_started_again_with_the_number_of_restarts(
    start: Start, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = start(REPORT_ARGUMENTS + "sys.exit(3)")
    pid = supervisor.pid
    wait_for_end(supervisor)
    clock.move(100)
    assert (supervisor.check(), supervisor.restarts) == (True, 1)
    wait_for_end(supervisor)
    assert "--restarts=1" in json.loads((tmp_path / "seen.json").read_text())["argv"]
    assert [record.getMessage() for record in caplog.records] == [
        f"otel_celery_memory: the reporter (process {pid}) ended after 100 s and is started again"
    ]


def restarts_at(supervisor: Supervisor, clock: FakeClock, seconds: int) -> list[float]:
    """When a reporter that dies at once is started again, looked at every second."""
    begun = clock()
    times = []
    for _ in range(seconds):
        clock.move(1)
        wait_for_end(supervisor)
        if supervisor.check():
            times.append(clock() - begun)
    return times


def test_a_reporter_that_dies_at_once_is_started_again_after_pauses_that_grow_to_a_minute(
    start: Start, clock: FakeClock
) -> None:
    times = restarts_at(start("raise SystemExit(1)"), clock, 300)
    pauses = [after - before for before, after in pairwise(times)]
    assert times[0] == 1
    assert pauses == sorted(pauses)
    assert pauses[:4] == [1, 2, 4, 8]
    assert 60 <= pauses[-1] <= 61


def test_a_reporter_that_lived_is_started_again_at_once_however_bad_it_was_before(
    start: Start, clock: FakeClock
) -> None:
    supervisor = start("raise SystemExit(1)")
    restarts_at(supervisor, clock, 8)
    clock.move(3_600)
    wait_for_end(supervisor)
    assert supervisor.check()
    clock.move(3_600)
    wait_for_end(supervisor)
    assert supervisor.check()


def test_if_no_process_can_be_started_the_first_start_raises(
    pipe: RecordWriter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    supervisor = Supervisor(pipe, SETTINGS, "celery@box", 0)
    with pytest.raises(OSError, match="gone"):
        supervisor.start()
    assert supervisor.pid is None
    assert supervisor.check() is False
    supervisor.stop()


def test_if_the_reporter_cannot_be_started_again_that_is_logged_and_retried(
    start: Start, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = start("raise SystemExit(1)")
    wait_for_end(supervisor)
    program = tmp_path / "python"
    program.rename(tmp_path / "moved")
    clock.move(100)
    assert supervisor.check() is False
    assert caplog.records[-1].levelno == logging.ERROR
    assert "the reporter cannot be started" in caplog.records[-1].getMessage()
    (tmp_path / "moved").rename(program)
    clock.move(100)
    assert supervisor.check() is True


def test_a_reporter_that_ends_in_time_is_waited_for(start: Start) -> None:
    supervisor = start("import time; time.sleep(0.05)")
    supervisor.stop(60)
    assert supervisor.pid is None


def test_a_reporter_that_does_not_end_in_time_is_killed(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = start("import time; time.sleep(600)")
    supervisor.stop(0.05)
    assert supervisor.pid is None
    assert [record.getMessage() for record in caplog.records] == [
        "otel_celery_memory: the reporter did not end in time and is killed"
    ]


def test_the_reporter_is_no_child_and_whoever_waits_for_all_children_does_not_meet_it(
    start: Start,
) -> None:
    supervisor = start("import time; time.sleep(600)")
    assert supervisor.pid is not None
    assert os.getpid() not in (psutil.Process(supervisor.pid).ppid(), os.getsid(supervisor.pid))
    assert supervisor.pid not in [child.pid for child in psutil.Process().children()]


def test_where_the_reporter_is_adopted_it_is_reaped_and_its_exit_code_is_logged(
    pipe: RecordWriter, tmp_path: Path
) -> None:
    """In a process of its own, as a child subreaper remains one."""
    script = f"""
import ctypes, logging, os, sys
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.lifecycle import supervisor as module
from otel_celery_memory.worker.record_writer import RecordWriter
program = {str(tmp_path / "python")!r}
sys.executable = program
supervisor = module.Supervisor(RecordWriter(), Settings(), "w@h", 0)
supervisor.start()
former = supervisor.pid
assert module.ReporterProcess(former).wait(60)
assert supervisor.check()
supervisor.stop()
assert not os.path.exists(f"/proc/{{former}}")
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no child is left")
"""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\n[ "$1" = -I ] && exec {PYTHON} "$@"\nexit 3\n')
    program.chmod(0o755)
    done = subprocess.run([PYTHON, "-c", script], capture_output=True, text=True, check=False)
    assert "with exit code 3 and is started again" in done.stdout, done.stderr
    assert done.stdout.endswith("no child is left\n"), done.stderr


def test_if_no_process_can_be_forked_the_first_start_raises_with_the_reason(
    pipe: RecordWriter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexit 11\n")  # as the starter says EAGAIN
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(OSError, match="Resource temporarily unavailable"):
        Supervisor(pipe, SETTINGS, "celery@box", 0).start()
