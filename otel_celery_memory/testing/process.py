"""A function called in a forked process, within a time: what it tells, and how it ended.

Forked and not started anew, so that what the test has set up and replaced is there, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import mmap
import os
import selectors
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, NoReturn

from otel_celery_memory.probes.allocators import c_function

_OUTPUT_MAX_BYTES = 64 << 10
_DUMPED_FOR_S = 2.0
_LOOKS_EVERY_S = 0.05
_PR_SET_PDEATHSIG = 1
_END = b"\0"


Tell = Callable[[bytes], None]


class Counter:
    """A number that the forked process counts up and this one reads, whatever happens there."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._number = ctypes.c_uint64.from_buffer(self._page)

    def count(self) -> None:
        """One more."""
        self._number.value += 1

    @property
    def value(self) -> int:
        """How many there were."""
        return int(self._number.value)


@dataclass(frozen=True)
class Ended:
    """How the process ended, and what it has written to its standard streams, at most 64 KiB.

    ``result`` is what the function told last, ``None`` if it told nothing, whatever came of it
    afterwards. ``status`` is that of `os.waitstatus_to_exitcode`: a signal's number below 0.
    """

    result: bytes | None
    status: int
    late: bool
    output: str
    stack: str
    """Where it was when time was up, as `faulthandler` tells it."""


def call_in_fork(function: Callable[[Tell], object], timeout_s: float) -> Ended:
    """Calls it in a forked process, of which nothing is left afterwards.

    Its argument is a function for what it has to tell: bytes without a zero.

    Raises `RuntimeError` where there is no fork.
    """
    if not hasattr(os, "fork"):
        raise RuntimeError("this platform cannot fork: tasks are tested for leaks on Linux")
    for stream in (sys.stdout, sys.stderr):
        # What waits there would be written twice.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as stack:
        reads, writes = os.pipe()
        try:
            with warnings.catch_warnings():
                # Of threads that the tests have: the process below is bound in time.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                _in_child(function, writes, output, stack)
            os.close(writes)
            writes = -1
            result, status, late = _wait(pid, reads, timeout_s)
        finally:
            os.close(reads)
            if writes >= 0:
                os.close(writes)
        return Ended(result, status, late, _tail(output), _tail(stack))


def _wait(pid: int, reads: int, timeout_s: float) -> tuple[bytes | None, int, bool]:
    deadline_s = time.monotonic() + timeout_s
    told, late = b"", False
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(reads, selectors.EVENT_READ)
            while not _has_ended(pid):
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 and late:
                    break
                if left_s <= 0:
                    late, deadline_s = True, time.monotonic() + _DUMPED_FOR_S
                    os.kill(pid, signal.SIGABRT)  # of which faulthandler writes the stack
                elif selector.get_map() and selector.select(min(left_s, _LOOKS_EVERY_S)):
                    part = os.read(reads, 1 << 16)
                    told += part
                    if not part:
                        selector.unregister(reads)
                elif not selector.get_map():
                    time.sleep(min(left_s, _LOOKS_EVERY_S))
            os.set_blocking(reads, False)
            with contextlib.suppress(BlockingIOError):
                while part := os.read(reads, 1 << 16):
                    told += part
    finally:
        # What the task has started and left is of its session.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    whole = told.split(_END)[:-1]
    return whole[-1] if whole else None, os.waitstatus_to_exitcode(status), late


def _in_child(
    function: Callable[[Tell], object], writes: int, output: IO[bytes], stack: IO[bytes]
) -> NoReturn:
    def tell(what: bytes) -> None:
        with os.fdopen(writes, "wb", closefd=False) as pipe:
            pipe.write(what + _END)

    try:
        os.setsid()
        _ends_with_its_parent()
        _stands_alone(output, stack)
        function(tell)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        _flush()
        os._exit(1)
    _flush()
    os._exit(0)


def _ends_with_its_parent() -> None:
    prctl = c_function("prctl", ctypes.c_int, ctypes.c_int, ctypes.c_ulong)
    if prctl is not None and sys.platform == "linux":
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stands_alone(output: IO[bytes], stack: IO[bytes]) -> None:
    """Takes away what keeps something of each run for the tests' sake, and would seem to leak."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False, errors="replace")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="replace")  # noqa: SIM115
    faulthandler.enable(stack)
    # Coverage and debuggers: what they learn of the runs is lost with the process.
    sys.settrace(None)
    sys.setprofile(None)
    threading.settrace(None)
    threading.setprofile(None)
    for logger in (logging.root, *_loggers()):
        for handler in list(logger.handlers):
            # They keep all records for `caplog` and the report.
            if type(handler).__module__.partition(".")[0] == "_pytest":
                logger.removeHandler(handler)
    warnings.showwarning = _show_no_warning


def _loggers() -> list[logging.Logger]:
    known = list(logging.root.manager.loggerDict.values())
    return [each for each in known if isinstance(each, logging.Logger)]


def _show_no_warning(*_: object, **__: object) -> None:
    """pytest keeps each one for its summary."""


def _flush() -> None:
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()


def _has_ended(pid: int) -> bool:
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return found is not None


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _OUTPUT_MAX_BYTES, 0))
    return file.read().decode(errors="replace")
