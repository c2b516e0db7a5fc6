"""Threads of the kernel's own: made and counted, also where greenlets have taken their place."""

from __future__ import annotations

import _thread
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from otel_celery_memory.probes.native_threads import (
    has_foreign_threads,
    is_patched,
    native_lock,
    native_thread,
    start_native_thread,
)
from tests.processes import wait_until

SCRIPT = """
{patch}
import time, _thread, threading
from otel_celery_memory.probes.native_threads import *
from otel_celery_memory.probes.native_threads import is_patched
assert is_patched() is {patched}
done, seen = native_lock(), []
done.acquire()
def work():
    seen.append(native_thread())
    done.release()
start_native_thread(work)
# Nothing here gives way: a greenlet would never run.
end = time.monotonic() + 30
while not done.acquire(False):
    assert time.monotonic() < end
assert seen != [native_thread()]
assert done.acquire(True, 0.01) is False
done.release()
with done:
    pass
assert has_foreign_threads() is False, "foreign"
print("ok")
"""
GEVENT = "import gevent.monkey; gevent.monkey.patch_all()"
EVENTLET = "import eventlet; eventlet.monkey_patch()"


@pytest.mark.parametrize(
    ("patch", "patched"),
    [("", False), (GEVENT, True), (EVENTLET, True)],
    ids=["plain", "gevent", "eventlet"],
)
def test_a_native_thread_runs_while_no_greenlet_gives_way(patch: str, patched: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT.format(patch=patch, patched=patched)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr


def test_here_nothing_is_patched_and_threads_have_numbers_of_their_own() -> None:
    seen: list[int] = []
    done = native_lock()
    done.acquire()

    def work() -> None:
        seen.append(native_thread())
        done.release()

    start_native_thread(work)
    assert done.acquire(True, 30)
    assert not is_patched()
    assert seen[0] != native_thread()


def test_a_native_thread_that_asks_who_it_is_leaves_no_dummy_behind() -> None:
    """As it does by logging."""
    names: list[str] = []
    before, threads = threading.enumerate(), _thread._count()
    start_native_thread(lambda: names.append(threading.current_thread().name))
    wait_until("the thread is gone", lambda: bool(names) and _thread._count() <= threads, 30)
    assert names[0].startswith("Dummy")
    assert threading.enumerate() == before


def test_python_s_own_threads_are_not_foreign() -> None:
    stop = threading.Event()
    started = [threading.Thread(target=stop.wait) for _ in range(3)]
    for thread in started:
        thread.start()
    assert not has_foreign_threads()
    stop.set()
    for thread in started:
        thread.join()


@pytest.mark.parametrize(("count", "foreign"), [(1, False), (2, True), (9, True)])
def test_what_the_kernel_counts_beyond_python_s_is_foreign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, foreign: bool
) -> None:
    # Whoever runs the tests may have threads of its own.
    monkeypatch.setattr(_thread, "_count", lambda: 0)
    for number in range(count):
        (tmp_path / str(number)).mkdir()
    assert has_foreign_threads(str(tmp_path)) is foreign


def test_without_a_proc_the_threads_are_counted_in_another_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Crowd:
        def num_threads(self) -> int:
            return 50

    assert not has_foreign_threads("/nonexistent")
    monkeypatch.setattr("psutil.Process", Crowd)
    assert has_foreign_threads("/nonexistent")
