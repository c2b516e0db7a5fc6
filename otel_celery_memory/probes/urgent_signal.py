"""SIGURG, and timers that send a signal: they wake the main thread between two bytecodes.

Two things use SIGURG: a person who wants a capture, for workers whose broker cannot be reached, and
the guard of traced runs, which must not be a thread: a task can notice a thread (``unshare`` fails,
CPython 3.12 warns at ``fork``).

SIGUSR1 is a prefork child's soft time limit, and Celery and billiard replace SIGUSR2. Neither uses
SIGURG, which is ignored by default; so a signal that comes too late harms nobody. A program that
the task starts inherits neither the handler nor the timers.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import os
import signal
import threading
from collections.abc import Callable

from otel_celery_memory.probes.native_threads import native_thread, start_native_thread

logger = logging.getLogger(__name__)

_MONOTONIC, _PROCESS_CPU, _THREAD_CPU = 1, 2, 3
_SIGEV_THREAD_ID = 4
_SIGEVENT_BYTES = 64


class _Sigevent(ctypes.Structure):
    _fields_ = [
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread", ctypes.c_int),
        ("rest", ctypes.c_byte * (_SIGEVENT_BYTES - 20)),
    ]


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Itimerspec(ctypes.Structure):
    _fields_ = [("interval", _Timespec), ("value", _Timespec)]


class SignalTimer:
    """Sends a signal to the main thread once, when time has passed. A fork has no timers."""

    def __init__(self, number: int) -> None:
        """``number``: of the signal."""
        self._number = number
        self._timer: ctypes.c_void_p | None = None
        self._pid = 0

    def set(self, seconds: float, clock: int = _MONOTONIC) -> bool:
        """Set it, which cancels what was set before; ``False`` where there are no such timers."""
        self.cancel()
        timer = _create(clock, self._number)
        if timer is None:
            return False
        self._timer, self._pid = timer, os.getpid()
        fraction, whole = math.modf(max(seconds, 0.0001))
        value = _Timespec(int(whole), int(fraction * 1e9))
        assert _settime is not None
        if _settime(timer, 0, ctypes.byref(_Itimerspec(_Timespec(0, 0), value)), None) == 0:
            return True
        self.cancel()
        return False

    def cancel(self) -> None:
        """Forget the time that was set."""
        timer, self._timer = self._timer, None
        # In a fork the number may be that of another timer.
        if timer is not None and _delete is not None and self._pid == os.getpid():
            _delete(timer)

    def has_expired(self) -> bool:
        """Whether the time that was set has come."""
        left = _Itimerspec()
        if self._timer is None or _gettime is None or self._pid != os.getpid():
            return False
        if _gettime(self._timer, ctypes.byref(left)) != 0:
            return False
        return not (left.value.seconds or left.value.nanoseconds)


class Alarm:
    """Calls a function once in the main thread, when time has passed: CPU time or real time.

    The function must not raise: it is called between two bytecodes of whatever runs there.

    CPU time is the calling thread's where that is the main thread, so that no blocking call of it
    is interrupted; in other threads it is the process's. Real time is for moments in which the main
    thread runs no task. Where there are no such timers (not Linux, or forbidden), or the user's
    code handles SIGURG, `set` is ``False``. A fork has no timers.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._timer = SignalTimer(getattr(signal, "SIGURG", 0))

    def set(self, cpu_s: float | None = None, real_s: float | None = None) -> bool:
        """Set it for so many seconds from now, of one kind; what was set before is cancelled."""
        self.cancel()
        seconds = cpu_s if cpu_s is not None else real_s
        if seconds is None or not _handled_here(install=True):
            return False
        clock = _MONOTONIC
        if cpu_s is not None:
            clock = _THREAD_CPU if native_thread() == _main_thread() else _PROCESS_CPU
        _alarms.add(self)
        if self._timer.set(seconds, clock):
            return True
        self.cancel()
        return False

    def cancel(self) -> None:
        """Forget the time that was set."""
        _alarms.discard(self)
        self._timer.cancel()

    def rings(self) -> bool:
        """Whether the time that was set has come: then it is forgotten, and the function called."""
        if not self._timer.has_expired():
            return False
        self.cancel()
        self._call()
        return True


def handle(do: Callable[[], None]) -> bool:
    """Calls `do` in a new thread at each SIGURG of a person; ``False`` where that is impossible.

    In a thread, because the signal may interrupt our own code while it holds locks.
    """
    if not _handled_here(install=False) and not _install(over_user=True):
        return False
    _captures[:] = [do]
    return True


def prepare() -> bool:
    """Handle SIGURG from now on, if nobody does; whether alarms can be set, in any thread."""
    return _handled_here(install=True) and _timer_create is not None


def release() -> None:
    """Resets SIGURG to its default, which is to be ignored, if it is still handled here."""
    _captures.clear()
    for alarm in list(_alarms):
        alarm.cancel()
    if not _handled_here(install=False):
        return
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGURG, signal.SIG_DFL)


def send(pids: list[int]) -> None:
    """Sends SIGURG to these processes; those that have ended are passed over."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGURG)


def is_ringing() -> bool:
    """Whether an alarm called what runs now: no lock may be waited for, as the code that the signal
    has interrupted may hold it."""
    return _ringing[0] > 0 and native_thread() == _main_thread()


_ringing = [0]
_captures: list[Callable[[], None]] = []
_alarms: set[Alarm] = set()
_owner = [0]
"""The process that handles the signal: an inherited handler does nothing."""


def _handler(*_: object) -> None:
    if _owner[0] != os.getpid():
        return  # inherited by a child that does not listen yet, or that a task forked
    _ringing[0] += 1
    try:
        rang = [alarm.rings() for alarm in list(_alarms)]
    finally:
        _ringing[0] -= 1
    if any(rang) or not _captures:
        return
    do = _captures[0]
    try:
        start_native_thread(lambda: _capture(do))
    except RuntimeError:
        logger.warning("otel_celery_memory: no thread can be started for a capture")


def _capture(do: Callable[[], None]) -> None:
    try:
        do()
    except Exception:
        logger.exception("otel_celery_memory: a capture by signal failed")


def _handled_here(*, install: bool) -> bool:
    """Whether SIGURG is handled by us in this process; ``install``: or can be from now on."""
    if not hasattr(signal, "SIGURG"):
        return False
    now = signal.getsignal(signal.SIGURG)
    if now is _handler and _owner[0] == os.getpid():
        return True
    return install and now in (signal.SIG_DFL, _handler) and _install()


def _install(*, over_user: bool = False) -> bool:
    if not hasattr(signal, "SIGURG") or native_thread() != _main_thread():
        return False
    if not over_user and signal.getsignal(signal.SIGURG) not in (signal.SIG_DFL, _handler):
        return False
    try:
        signal.signal(signal.SIGURG, _handler)
    except ValueError:  # a subinterpreter's main thread
        return False
    # The signal must not interrupt the task's system calls.
    signal.siginterrupt(signal.SIGURG, False)
    if _owner[0] != os.getpid():
        _alarms.clear()  # timers are not inherited
        _captures.clear()
        _owner[0] = os.getpid()
    return True


def _main_thread() -> int:
    return threading.main_thread().ident or 0


def _function(name: str) -> Callable[..., int] | None:
    for library in (None, "librt.so.1"):  # glibc before 2.34 has them in librt
        try:
            found = getattr(ctypes.CDLL(library), name)
        except (AttributeError, OSError, TypeError):
            continue
        found.restype = ctypes.c_int
        function: Callable[..., int] = found
        return function
    return None


_settime = _function("timer_settime")
_gettime = _function("timer_gettime")
_delete = _function("timer_delete")
_timer_create = _function("timer_create")


def _create(clock: int, number: int) -> ctypes.c_void_p | None:
    if _timer_create is None or None in (_settime, _gettime, _delete):
        return None
    timer = ctypes.c_void_p()
    # The first thread of a process has its number.
    event = _Sigevent(None, number, _SIGEV_THREAD_ID, os.getpid())
    if _timer_create(clock, ctypes.byref(event), ctypes.byref(timer)) != 0:
        return None
    return timer
