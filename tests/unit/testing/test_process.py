"""A forked process says what came of it, however it ended, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import psutil
import pytest

from otel_celery_memory.testing.process import Counter, Tell, call_in_fork
from tests.processes import wait_until


def test_what_the_function_returns_and_prints_comes_back() -> None:
    def function(tell: Tell) -> None:
        print("said")
        tell(b"result")

    ended = call_in_fork(function, 30)
    assert (ended.result, ended.output, ended.late) == (b"result", "said\n", False)


def test_a_large_result_comes_back_whole() -> None:
    ended = call_in_fork(lambda tell: tell(b"x" * 1_000_000), 30)
    assert ended.result == b"x" * 1_000_000


def test_what_was_told_last_counts_whatever_comes_afterwards() -> None:
    def function(tell: Tell) -> None:
        tell(b"first")
        tell(b"second")
        time.sleep(600)

    ended = call_in_fork(function, 3)
    assert (ended.result, ended.late) == (b"second", True)


def test_an_exit_code_and_a_signal_are_told() -> None:
    def is_killed(_: Tell) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    exited = call_in_fork(lambda _: os._exit(3), 30)
    killed = call_in_fork(is_killed, 30)
    assert (exited.result, exited.status) == (None, 3)
    assert (killed.result, killed.status) == (None, -signal.SIGKILL)


def test_an_exception_is_in_the_output() -> None:
    def raises(_: Tell) -> None:
        raise ValueError("what is wrong")

    ended = call_in_fork(raises, 30)
    assert (ended.result, ended.status) == (None, 1)
    assert "ValueError: what is wrong" in ended.output


def test_one_that_hangs_is_ended_and_tells_where_it_was() -> None:
    def hangs(_: Tell) -> None:
        time.sleep(600)

    ended = call_in_fork(hangs, 3)
    assert ended.late
    assert ended.result is None
    assert "in hangs" in ended.stack


def test_one_that_ignores_the_signal_is_ended_too() -> None:
    def hangs(_: Tell) -> None:
        signal.signal(signal.SIGABRT, signal.SIG_IGN)
        time.sleep(600)

    ended = call_in_fork(hangs, 3)
    assert (ended.late, ended.status) == (True, -signal.SIGKILL)


def test_a_process_that_keeps_the_pipe_open_does_not_keep_us_waiting() -> None:
    def forks(_: Tell) -> None:
        if os.fork() == 0:
            time.sleep(600)
        os._exit(4)

    assert call_in_fork(forks, 60).status == 4


def test_processes_that_it_has_started_are_ended() -> None:
    def starts(tell: Tell) -> None:
        tell(str(subprocess.Popen(["sleep", "600"]).pid).encode())

    result = call_in_fork(starts, 30).result
    assert result is not None
    wait_until(
        "the end of the process that was left",
        lambda: (
            not psutil.pid_exists(int(result))
            or psutil.Process(int(result)).status() == psutil.STATUS_ZOMBIE
        ),
        timeout_s=30,
    )


def test_no_descriptor_stays_open_here() -> None:
    call_in_fork(lambda tell: tell(b""), 30)
    before = psutil.Process().num_fds()
    call_in_fork(lambda tell: tell(b""), 30)
    assert psutil.Process().num_fds() == before


def test_a_counter_is_read_where_it_was_not_counted() -> None:
    counter = Counter()

    def counts(_: Tell) -> None:
        counter.count()
        counter.count()
        os._exit(1)

    call_in_fork(counts, 30)
    assert counter.value == 2


def test_where_there_is_no_fork_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    with pytest.raises(RuntimeError, match="cannot fork"):
        call_in_fork(lambda tell: tell(b""), 1)
