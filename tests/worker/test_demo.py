"""The demo as a user runs it: what its summary says, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from demo.receiver import Receiver
from tests.processes import answers, get, wait_until
from tests.worker.harness import reporters_of

ROOT = Path(__file__).resolve().parents[2]
RUN_TIMEOUT_S = 600.0
STAYS = re.compile(r"The page stays open: (http://\S+/) ")


@contextmanager
def demo(directory: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The demo, with `directory` as the place of temporary files."""
    process = subprocess.Popen(
        [sys.executable, "-m", "demo", *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(directory)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As a shell starts it: pytest under nohup has signals ignored that Ctrl-C is made of.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=RUN_TIMEOUT_S)


def leaking_line() -> int:
    """The line of the demo's application that is marked as the leak."""
    lines = (ROOT / "demo" / "app.py").read_text(encoding="utf-8").splitlines()
    (number,) = [at for at, line in enumerate(lines, start=1) if line.endswith("# the leak")]
    return number


def test_summary_names_the_leaking_task_and_line_and_the_page_stays_open(tmp_path: Path) -> None:
    """The summary names the task that leaks, its line and the task that spikes."""
    with demo(tmp_path, "--seconds", "16", "--view") as process:
        assert process.stdout is not None
        output = ""
        while not (stays := STAYS.search(output)):
            line = process.stdout.readline()
            assert line, output + process.communicate()[1]
            output += line
        snapshot = json.loads(get(f"{stays[1]}snapshot.json"))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=RUN_TIMEOUT_S)
    assert (process.returncode, errors) == (0, "")
    assert output.startswith("A Celery worker with two processes runs three tasks for 16 seconds")
    assert stays[1] in output.partition("Retained by a run")[0]
    _, _, verdict = output.partition("feeds.refresh leaks: ")
    assert verdict.splitlines()[1].strip() == f"demo/app.py:{leaking_line()} in refresh", output
    assert "reports.render spikes: " in output
    assert "mail.send: a run retains " in output
    assert ", 0 lost, 0 frames dropped." in output
    (worker,) = snapshot["workers"]
    assert worker["state"] == "ended"
    assert {task["name"] for task in worker["tasks"]} == {
        *("feeds.refresh", "mail.send", "reports.render"),
    }
    wait_until("the view has ended with it", lambda: not answers(stays[1]), 5.0)
    assert not list(tmp_path.iterdir())


def test_telemetry_goes_elsewhere_if_that_is_asked_for(tmp_path: Path) -> None:
    with (
        Receiver() as receiver,
        demo(tmp_path, "--endpoint", receiver.endpoint, "--seconds", "3") as process,
    ):
        output, errors = process.communicate(timeout=RUN_TIMEOUT_S)
    assert process.returncode == 0, output + errors
    assert f"was sent to {receiver.endpoint}" in output
    assert receiver.received.latest("celery.task.memory.measured")


def test_a_page_of_what_is_sent_elsewhere_cannot_stay_open(tmp_path: Path) -> None:
    with demo(tmp_path, "--endpoint", "http://127.0.0.1:4318", "--view") as process:
        _, errors = process.communicate(timeout=RUN_TIMEOUT_S)
    assert process.returncode == 2
    assert "--view is for what the demo receives itself" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """An interrupted demo ends its processes, removes its directory and shows no traceback."""
    with demo(tmp_path) as process:
        assert process.stdout is not None
        assert any("tasks run" in line for line in iter(process.stdout.readline, ""))
        family = psutil.Process(process.pid).children(recursive=True)
        family += [psutil.Process(pid) for each in list(family) for pid in reporters_of(each.pid)]
        assert len(family) >= 5, "a view, a worker, two children and a reporter"
        process.send_signal(number)
        _, errors = process.communicate(timeout=RUN_TIMEOUT_S)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    wait_until("its processes are gone", lambda: not any(map(_runs, family)), 2.0)
    assert not list(tmp_path.iterdir())


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
