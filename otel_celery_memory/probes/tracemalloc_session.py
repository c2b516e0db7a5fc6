"""Starts and stops ``tracemalloc`` for us, and leaves the user's own tracing alone."""

from __future__ import annotations

import logging
import os
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Collection
from typing import Any, Protocol

from otel_celery_memory.probes.allocators import FreeLists
from otel_celery_memory.probes.native_threads import EnteringThreads, native_lock, native_thread

logger = logging.getLogger(__name__)

_original_start = tracemalloc.start
_TOLD_AFTER = 3
"""So often in a row it must have been unsafe: of a thread that runs just then nothing is known."""
TRACE_BYTES = 50
"""What ``tracemalloc`` keeps for one live block: 48 to 59 bytes on CPython 3.10 to 3.13."""


class TracedMemory(Protocol):
    """What a task measurement reads of ``tracemalloc``."""

    @property
    def session(self) -> int:
        """A number that changes whenever we start or stop; 0 while nothing is traced."""

    def begin(self) -> int:
        """Start a new traced peak; traced bytes now."""

    def read(self) -> tuple[int, int]:
        """Traced bytes now, and the highest since `begin`."""


class TracemallocSession:
    """Starts ``tracemalloc`` where it does not run, and stops only what it started.

    While we trace, ``tracemalloc.start`` is replaced. Otherwise a call by the user's code would do
    nothing, since tracing is on, and our stop would end what the user takes for theirs. So such a
    call ends our tracing and begins the user's, with their number of frames.
    """

    def __init__(
        self, frames: int, entering_threads: Callable[[], Collection[str]] | None = None
    ) -> None:
        """``entering_threads``: threads not of Python that may enter the interpreter, by name."""
        self._frames = frames
        self._entering_threads = entering_threads or EnteringThreads().find
        self._unsafe_in_a_row = 0
        self.on_unsafe: Callable[[], None] = lambda: None
        """Called once, when the process is not traced because stopping is not safe."""
        self._ours = False
        self._sessions = 0
        self._their_start: Callable[..., None] | None = None
        self._forks_followed = False
        # A guard's thread may stop the tracing while the user's code replaces it.
        self._changing = native_lock()
        self._replacing = 0
        self.free_lists = FreeLists()
        self.clears_free_lists = True
        """Whether `read` empties the free lists. Not where tracing is always on: what they hold
        was there before the run, too."""

    def start(self) -> bool:
        """Trace from now on; ``False`` where the user's code traces, which goes on."""
        with self._changing:
            if tracemalloc.is_tracing():
                return False
            self._sessions += 1
            self._their_start = tracemalloc.start
            tracemalloc.start = self._replace
            self._ours = True
            try:
                _original_start(self._frames)
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
        """Do not trace what a traced task forks: nothing would ever stop it there."""
        if self._forks_followed or not hasattr(os, "register_at_fork"):
            return
        self._forks_followed = True
        reference = weakref.ref(self)

        def in_child() -> None:
            tracer = reference()
            if tracer is not None:
                tracer._changing = native_lock()  # one of the parent's threads may hold it
                tracer._replacing = 0
                tracer.stop()

        os.register_at_fork(after_in_child=in_child)

    @property
    def ours(self) -> bool:
        """Whether this session started the tracing that is on."""
        return self._ours

    @property
    def session(self) -> int:
        """A number that changes whenever we start or stop; 0 while nothing is traced."""
        return self._sessions + 1 if tracemalloc.is_tracing() else 0

    def can_stop_safely(self) -> bool:
        """Whether ``tracemalloc.stop`` is safe now.

        A thread that Python did not start and that allocates on its way into the interpreter,
        while another thread stops tracing, crashes the process (gh-128679). Where that is not
        fixed, processes with threads that may do so are not traced within a budget.
        """
        if _STOP_IS_FIXED:
            return True
        entering = self._entering_threads()
        if not entering:
            self._unsafe_in_a_row = 0
            return True
        self._unsafe_in_a_row += 1
        if self._unsafe_in_a_row == _TOLD_AFTER:
            logger.warning(
                "otel_celery_memory: allocations are not traced in process %d: CPython %s can "
                "crash when tracing stops while a thread that Python did not start enters the "
                "interpreter (gh-128679; fixed in 3.12.9 and 3.13.2), as these may: %s",
                os.getpid(),
                sys.version.split()[0],
                ", ".join(list(entering)[:5]),
            )
            self.on_unsafe()
        return False

    def live_traces(self) -> int:
        """About how many blocks are traced and alive, in 0.4 us however many there are."""
        return tracemalloc.get_tracemalloc_memory() // TRACE_BYTES

    def begin(self) -> int:
        """Start a new traced peak; traced bytes now."""
        tracemalloc.reset_peak()
        return tracemalloc.get_traced_memory()[0]

    def read(self) -> tuple[int, int]:
        """Traced bytes now, and the highest since `begin`."""
        peak = tracemalloc.get_traced_memory()[1]
        if self.clears_free_lists:
            self.free_lists.clear()
        return tracemalloc.get_traced_memory()[0], peak

    def _replace(self, *args: Any, **kwargs: Any) -> None:
        """The user's code calls ``tracemalloc.start`` while we trace: ours ends, theirs begins.

        It may also be called when we do not trace, by code that kept it while we did, and by the
        user's own replacement of the function, which we call here.
        """
        if self._replacing == native_thread():
            _original_start(*args, **kwargs)
            return
        with self._changing:
            theirs = self._their_start or _original_start
            self._stop_ours()
            self._replacing = native_thread()
            try:
                theirs(*args, **kwargs)
            finally:
                self._replacing = 0

    def _give_start_back(self) -> None:
        # The user's code may have replaced it meanwhile.
        if tracemalloc.start == self._replace and self._their_start is not None:
            tracemalloc.start = self._their_start
        self._their_start = None


def _fixed(version: tuple[int, ...]) -> bool:
    """Whether gh-128679 is fixed: in 3.12.9, 3.13.2 and all of 3.14."""
    if version >= (3, 13):
        return version >= (3, 13, 2)
    return version >= (3, 12, 9)


def stop_is_fixed() -> bool:
    """Whether tracing may be stopped whatever threads there are (gh-128679)."""
    return _STOP_IS_FIXED


_STOP_IS_FIXED = _fixed(sys.version_info[:3])
