"""``tracemalloc``, run for us: started and stopped without touching anybody else's tracing."""

from __future__ import annotations

import os
import sys
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from otel_celery_memory.probes.allocators import FreeLists
from otel_celery_memory.probes.native_threads import has_foreign_threads, native_lock, native_thread

_python_s_start = tracemalloc.start
TRACE_BYTES = 50
"""What ``tracemalloc`` keeps for one live block: 48 to 59 bytes on CPython 3.10 to 3.13."""


class TracedMemory(Protocol):
    """What a task measurement asks of ``tracemalloc``."""

    @property
    def session(self) -> int:
        """A number that changes whenever we start or stop; 0 while nobody traces."""

    def begin(self) -> int:
        """Traced bytes now; a new traced peak begins."""

    def read(self) -> tuple[int, int]:
        """Traced bytes now, and the highest since `begin`."""


class TracemallocSession:
    """Starts ``tracemalloc`` where it does not run, and stops only what it started.

    While it traces, ``tracemalloc.start`` is replaced: called by the user's code it would do
    nothing, since tracing is on, and our stop would end what he takes for his. So his call begins
    a tracing of his own, with his number of frames, which we then leave alone.
    """

    def __init__(self, frames: int, foreign_threads: Callable[[], bool] = has_foreign_threads):
        self._frames = frames
        self._foreign_threads = foreign_threads
        self._ours = False
        self._sessions = 0
        self._their_start: Callable[..., None] | None = None
        self._forks_followed = False
        # A guard's thread may stop what the user's code is about to take over.
        self._changing = native_lock()
        self._taking_over = 0
        self.free_lists = FreeLists()
        self.clears_free_lists = True
        """Where tracing begins and ends with a run. Where it is always on, what the lists hold
        was there before the run as well."""

    def start(self, frames: int | None = None) -> bool:
        """Trace from now on; ``False`` where somebody traces already, which is left as it is."""
        with self._changing:
            if tracemalloc.is_tracing():
                return False
            self._sessions += 1
            self._their_start = tracemalloc.start
            tracemalloc.start = self._taken_over
            self._ours = True
            try:
                _python_s_start(frames or self._frames)
            except BaseException:
                self._stop_ours()
                raise
            return True

    def stop(self) -> None:
        """Stop what `start` started."""
        if self._ours:
            with self._changing:
                self._stop_ours()

    def _stop_ours(self) -> None:
        if not self._ours:
            return
        self._ours = False
        self._sessions += 1
        if tracemalloc.is_tracing():
            tracemalloc.stop()
        self._give_start_back()

    def stop_in_forks(self) -> None:
        """What a traced task forks is not traced: nobody would ever stop it there."""
        if self._forks_followed or not hasattr(os, "register_at_fork"):
            return
        self._forks_followed = True
        reference = weakref.ref(self)

        def in_child() -> None:
            tracer = reference()
            if tracer is not None:
                tracer._changing = native_lock()  # a thread that is no more may have held it
                tracer._taking_over = 0
                tracer.stop()

        os.register_at_fork(after_in_child=in_child)

    @property
    def ours(self) -> bool:
        """Whether what is being traced was started here."""
        return self._ours

    @property
    def session(self) -> int:
        """A number that changes whenever we start or stop; 0 while nobody traces."""
        return self._sessions + 1 if tracemalloc.is_tracing() else 0

    def can_stop_safely(self) -> bool:
        """Whether ``tracemalloc.stop`` is safe now.

        A thread that Python did not start and that allocates on its way into the interpreter,
        while another thread stops tracing, crashes the process (gh-128679). Where that is not
        mended, processes with such threads are not traced within a budget.
        """
        return _STOP_IS_MENDED or not self._foreign_threads()

    def live_traces(self) -> int:
        """About how many blocks are traced and alive, told in 0.4 us however many there are."""
        return tracemalloc.get_tracemalloc_memory() // TRACE_BYTES

    def begin(self) -> int:
        """Traced bytes now; a new traced peak begins."""
        tracemalloc.reset_peak()
        return tracemalloc.get_traced_memory()[0]

    def read(self) -> tuple[int, int]:
        """Traced bytes now, and the highest since `begin`."""
        peak = tracemalloc.get_traced_memory()[1]
        if self.clears_free_lists:
            self.free_lists.clear()
        return tracemalloc.get_traced_memory()[0], peak

    def _taken_over(self, *args: Any, **kwargs: Any) -> None:
        """The user starts tracing himself: what we trace ends, and his begins.

        Called while we do not trace, or by his function that we call here, this is what he found
        in place of Python's while we traced, and kept.
        """
        if self._taking_over == native_thread():
            _python_s_start(*args, **kwargs)
            return
        with self._changing:
            theirs = self._their_start or _python_s_start
            self._stop_ours()
            self._taking_over = native_thread()
            try:
                theirs(*args, **kwargs)
            finally:
                self._taking_over = 0

    def _give_start_back(self) -> None:
        # Somebody may have put another in its place meanwhile.
        if tracemalloc.start == self._taken_over and self._their_start is not None:
            tracemalloc.start = self._their_start
        self._their_start = None


def _mended(version: tuple[int, ...]) -> bool:
    """Whether gh-128679 is mended: in 3.12.9, 3.13.2 and all of 3.14; never before."""
    if version >= (3, 13):
        return version >= (3, 13, 2)
    return version >= (3, 12, 9)


_STOP_IS_MENDED = _mended(sys.version_info[:3])
