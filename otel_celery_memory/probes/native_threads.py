"""Native threads: which of them Python did not start, and how to start one beside greenlets.

gevent and eventlet replace ``_thread`` by greenlets, and a greenlet cannot stop a task that does
not yield. Both keep the original functions.

**Which threads may enter the interpreter.** Where gh-128679 is not fixed, to stop tracing while a
thread enters the interpreter crashes the process. A thread that waits tells where it is: the kernel
gives its stack pointer (``/proc/self/task/<tid>/syscall``), and the stack has the addresses of the
functions that it is in. A thread that is in the C library and in one of the libraries below, and
nowhere else, computes for that library and calls nothing of Python. All other threads may enter:
those of unknown libraries, those that run, and those that cannot be read. Arrow is not among the
libraries: its threads call Python where a file or a function is the user's.
"""

from __future__ import annotations

import _thread
import os
import re
import sys
import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psutil

_TASKS = "/proc/self/task"
_KEEPS_OUT = re.compile(
    r"lib(scipy_|)openblas|lib(blas|lapack)[.]|libblis|libgomp[.-]|libi?omp5?[.-]|libmkl_|libtbb[.-]|libjemalloc[.]"
)
"""Libraries whose threads compute and never enter the interpreter."""
_C_LIBRARY = re.compile(r"(lib(c|m|pthread|dl|rt|gcc_s)[.-]|ld-|\[vdso\]$)")
_STACK_MAX_BYTES = 64 << 10
"""Such a thread that waits has some 5 KiB on its stack."""


class NativeLock(Protocol):
    """A lock for native threads, as ``_thread.allocate_lock`` makes it."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, within `timeout` seconds if that is not negative; whether it was taken."""

    def release(self) -> None:
        """Release it; any thread may."""

    def __enter__(self) -> bool: ...

    def __exit__(self, *exc_info: object) -> None: ...


def is_patched() -> bool:
    """Whether gevent or eventlet has replaced the threads of this process."""
    return getattr(_thread.allocate_lock, "__module__", "_thread") != "_thread"


def native_lock() -> NativeLock:
    """A lock that a native thread can wait for."""
    lock: NativeLock = _original("allocate_lock")()
    return lock


def native_rlock() -> NativeLock:
    """A lock that one native thread may take again, as a handler of a signal does."""
    lock: NativeLock = _original("RLock")()
    return lock


def start_native_thread(function: Callable[[], None]) -> None:
    """Run `function` in a native thread; raises `RuntimeError` where none can be started."""
    _original("start_new_thread")(_run, (function,))


def _run(function: Callable[[], None]) -> None:
    try:
        function()
    finally:
        if not is_patched():  # a greenlet's dummy is removed with it
            _forget_dummy()


def _forget_dummy() -> None:
    """Remove the dummy that ``threading`` keeps of a thread that it did not start.

    It makes one when such a thread calls ``current_thread``, as logging does. Before CPython 3.13
    it keeps it for ever, or until a thread has the same number.
    """
    known: dict[int, threading.Thread] = vars(threading).get("_active", {})
    if isinstance(known.get(threading.get_ident()), threading._DummyThread):
        known.pop(threading.get_ident(), None)


def native_thread() -> int:
    """The number of this native thread, whatever greenlet runs in it."""
    return int(_original("get_ident")())


def has_foreign_threads(tasks: str = _TASKS) -> bool:
    """Whether this process has threads that Python did not start."""
    known = 1 + int(_original("_count")())
    try:
        # A directory has two links, and one more for each directory in it.
        return os.stat(tasks).st_nlink - 2 > known  # noqa: PTH116
    except OSError:
        return psutil.Process().num_threads() > known


class EnteringThreads:
    """Which threads of this process, that Python did not start, may enter the interpreter."""

    def __init__(self, process: Path = Path("/proc/self")) -> None:
        self._process = process
        self._harmless: dict[int, str] = {}
        """Threads that were read once, with their library: they stay what they are."""

    def find(self) -> tuple[str, ...]:
        """What is known of those that may: a library, or a name; empty where there are none."""
        if not has_foreign_threads(str(self._process / "task")):
            return ()
        try:
            return self._find()
        except (OSError, ValueError, OverflowError):
            return ("threads that cannot be read",)

    def _find(self) -> tuple[str, ...]:
        present = {int(name) for name in os.listdir(self._process / "task")}  # noqa: PTH208
        self._harmless = {tid: lib for tid, lib in self._harmless.items() if tid in present}
        # A dummy stands for a thread that has entered the interpreter before.
        ours = {os.getpid()} | {
            thread.native_id
            for thread in threading.enumerate()
            if not isinstance(thread, threading._DummyThread)
        }
        unknown = sorted(present - self._harmless.keys() - ours)
        mappings = _mappings(self._process / "maps") if unknown else []
        suspects = []
        for tid in unknown:
            libraries = self._libraries_of(tid, mappings)
            foreign = sorted(lib for lib in libraries if not _C_LIBRARY.match(lib))
            if foreign and all(map(_KEEPS_OUT.match, foreign)):
                self._harmless[tid] = foreign[0]
            else:
                suspects.append(_description(self._process / "task" / str(tid), foreign))
        # Python starts threads that `threading` does not know (`_thread`): so many may be left.
        unlisted = 1 + int(_original("_count")()) - len(ours & present)
        return tuple(suspects) if len(suspects) > max(unlisted, 0) else ()

    def _libraries_of(self, tid: int, mappings: list[Mapping]) -> set[str]:
        """File names of the libraries whose functions a waiting thread is in; empty: not known."""
        try:
            words = (self._process / "task" / str(tid) / "syscall").read_text().split()
        except OSError:
            return set()
        if len(words) < 3:  # it runs now
            return set()
        low = int(words[-2], 16) & ~7
        high = next((each.high for each in mappings if each.low <= low < each.high), 0)
        if not 0 < high - low <= _STACK_MAX_BYTES:
            return set()
        with (self._process / "mem").open("rb", buffering=0) as memory:
            data = os.pread(memory.fileno(), high - low, low)
        addresses = array("Q")
        addresses.frombytes(data[: len(data) & ~7])
        found = sorted({int(words[-1], 16), *addresses})
        return {
            each.name
            for each in mappings
            if each.code and bisect_left(found, each.low) < bisect_left(found, each.high)
        }


class Mapping(NamedTuple):
    """A part of the address space."""

    low: int
    high: int
    code: bool
    name: str
    """Its file's; ``?`` for code without a file."""


def _mappings(maps: Path) -> list[Mapping]:
    mappings = []
    for line in maps.read_text(errors="replace").splitlines():
        span, flags, *rest = line.split(maxsplit=5)
        low, high = (int(part, 16) for part in span.split("-"))
        name = rest[3].rpartition("/")[2] if len(rest) > 3 else "?"
        mappings.append(Mapping(low, high, "x" in flags, name))
    return mappings


def _description(task: Path, libraries: list[str]) -> str:
    try:
        name = (task / "comm").read_text(errors="replace").strip()
    except OSError:
        name = "a thread"
    return f"{name} ({', '.join(libraries[:2])})" if libraries else name


def _original(name: str) -> Any:
    if is_patched():
        if "gevent.monkey" in sys.modules:
            return sys.modules["gevent.monkey"].get_original("_thread", name)
        if "eventlet.patcher" in sys.modules:
            return getattr(sys.modules["eventlet.patcher"].original("_thread"), name)
    return getattr(_thread, name)
