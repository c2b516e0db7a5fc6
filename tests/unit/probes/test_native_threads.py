"""Threads of the kernel's own: made and counted, also where greenlets have taken their place."""

from __future__ import annotations

import _thread
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from otel_celery_memory.probes.native_threads import (
    EnteringThreads,
    has_foreign_threads,
    is_patched,
    native_lock,
    native_thread,
    start_native_thread,
)
from otel_celery_memory.probes.tracemalloc_session import stop_is_fixed
from tests.native_library import compiled
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
        timeout=300,
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


RESTING = """
import ctypes, os, sys, time
from otel_celery_memory.probes.native_threads import EnteringThreads
ctypes.CDLL(sys.argv[1]).begin_resting()
number = max(map(int, os.listdir("/proc/self/task")))
while "running" in open(f"/proc/self/task/{number}/syscall").read():
    time.sleep(0.01)
print(list(EnteringThreads().find()))
"""
CRASHING = """
import ctypes, os, sys, time, tracemalloc
ctypes.CDLL(sys.argv[1]).begin_entering()
until = time.monotonic() + 60
while time.monotonic() < until:
    tracemalloc.start()
    [object() for _ in range(50)]
    tracemalloc.stop()
    if sys.argv[2] == "fixed":
        break
os._exit(0)
"""


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", ["libopenblas64_p-r0-2f7c42d4.so", "libgomp-a34b3233.so.1.0.0"])
def test_a_thread_that_waits_in_a_library_that_computes_enters_no_interpreter(
    tmp_path: Path, name: str
) -> None:
    done = run(RESTING, compiled(tmp_path, name))
    assert done.stdout == "[]\n", done.stderr


def test_a_thread_of_an_unknown_library_may_and_is_named(tmp_path: Path) -> None:
    done = run(RESTING, compiled(tmp_path, "libother.so"))
    assert done.stdout.endswith(" (libother.so)']\n"), done.stderr


def test_a_thread_that_takes_python_s_memory_while_tracing_stops_crashes_what_is_not_fixed(
    tmp_path: Path,
) -> None:
    fixed = stop_is_fixed()
    done = run(CRASHING, compiled(tmp_path, "libother.so"), "fixed" if fixed else "not")
    assert (done.returncode == 0) is fixed
    assert done.returncode in (0, -signal.SIGSEGV, -signal.SIGABRT)


def test_where_threads_cannot_be_read_they_may_enter(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / "task" / str(number)).mkdir(parents=True)
    (tmp_path / "maps").write_text("")
    assert len(EnteringThreads(tmp_path).find()) == 5
    (tmp_path / "maps").unlink()
    assert EnteringThreads(tmp_path).find() == ("threads that cannot be read",)
