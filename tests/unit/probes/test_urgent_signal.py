"""SIGURG begins a capture in a thread of its own, and changes nothing else."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from otel_celery_memory.probes import urgent_signal
from tests.processes import wait_until


@pytest.fixture(autouse=True)
def default_again() -> Iterator[None]:
    threads = _thread._count()
    yield
    urgent_signal.release()
    wait_until("the thread is gone", lambda: _thread._count() <= threads, 30)
    assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL


def test_each_signal_calls_the_handler_in_another_thread() -> None:
    seen: list[int] = []
    assert urgent_signal.handle(lambda: seen.append(_thread.get_ident()))
    for count in (1, 2, 3):
        urgent_signal.send([os.getpid()])
        wait_until("it was called", lambda count=count: len(seen) >= count, 30)  # type: ignore[misc]
    assert _thread.get_ident() not in seen


def test_what_the_task_is_doing_is_not_interrupted() -> None:
    assert urgent_signal.handle(lambda: None)
    reader, writer = os.pipe()
    timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGURG))
    late = threading.Timer(0.2, lambda: os.write(writer, b"x"))
    timer.start()
    late.start()
    assert os.read(reader, 1) == b"x"
    for thread in (timer, late):
        thread.join()
    os.close(reader)
    os.close(writer)


def test_a_signal_that_arrives_while_a_lock_is_held_waits_for_nothing() -> None:
    lock = threading.Lock()
    seen: list[bool] = []

    def do() -> None:
        with lock:
            seen.append(True)

    assert urgent_signal.handle(do)
    with lock:
        urgent_signal.send([os.getpid()])
        time.sleep(0)
        assert seen == []
    wait_until("it was called", lambda: bool(seen), 30)


def test_a_failure_is_logged_and_the_next_signal_is_handled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[int] = []

    def fails() -> None:
        calls.append(1)
        raise OSError("no")

    assert urgent_signal.handle(fails)
    for count in (1, 2):
        urgent_signal.send([os.getpid()])
        wait_until("it failed", lambda count=count: len(caplog.records) >= count, 30)  # type: ignore[misc]
    assert len(calls) == 2


def test_without_a_thread_for_it_nothing_is_done(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(urgent_signal, "start_native_thread", none_left)
    assert urgent_signal.handle(lambda: None)
    urgent_signal.send([os.getpid()])
    wait_until("it is logged", lambda: bool(caplog.records), 30)
    assert [r.getMessage() for r in caplog.records] == [
        "otel_celery_memory: no thread can be started for a capture"
    ]


def test_outside_of_the_main_thread_no_handler_can_be_set() -> None:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(urgent_signal.handle(lambda: None)))
    thread.start()
    thread.join()
    assert found == [False]


def test_the_soft_time_limit_s_signal_is_left_alone() -> None:
    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)
    assert urgent_signal.handle(lambda: None)
    assert (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)) == before


def test_another_handler_is_not_removed() -> None:
    def other(*_: object) -> None:
        """A handler that is not ours."""

    urgent_signal.handle(lambda: None)
    signal.signal(signal.SIGURG, other)
    urgent_signal.release()
    assert signal.getsignal(signal.SIGURG) is other
    signal.signal(signal.SIGURG, signal.SIG_DFL)


def test_processes_that_have_ended_are_passed_over() -> None:
    seen: list[int] = []
    assert urgent_signal.handle(lambda: seen.append(1))
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    urgent_signal.send([pid, os.getpid()])
    wait_until("it was called", lambda: seen == [1], 30)


def test_a_forked_process_does_not_handle_signals_for_its_parent() -> None:
    reader, writer = os.pipe()

    def write() -> None:
        os.write(writer, b"x")

    assert urgent_signal.handle(write)
    pid = os.fork()
    if not pid:
        os.kill(os.getpid(), signal.SIGURG)
        time.sleep(0.2)
        os._exit(0)
    os.waitpid(pid, 0)
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    os.close(reader)
    os.close(writer)
