"""Starts and stops ``tracemalloc`` for us, and steps back where a task asks it anything.

A task must see of ``tracemalloc`` what it would see without us. So while our tracing is on, the
public functions of the module are replaced. Whoever calls one of them ends our tracing first, and
then gets what Python's function says: nothing is traced. Names that were imported out of the module
before (``from tracemalloc import start``) cannot be replaced: a process with a module that has
such a name is not traced.
"""

from __future__ import annotations

import logging
import os
import sys
import tracemalloc
import weakref
from _tracemalloc import _get_object_traceback
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any, Protocol

from otel_celery_memory.probes.allocators import FreeLists
from otel_celery_memory.probes.native_threads import (
    EnteringThreads,
    native_rlock,
    native_thread,
)

logger = logging.getLogger(__name__)

_TOLD_AFTER = 3
"""So often in a row it must have been unsafe: of a thread that runs just then nothing is known."""
_SEEN_IN_A_ROW = 100
TRACE_BYTES = 50
"""What ``tracemalloc`` keeps for one live block: 48 to 59 bytes on CPython 3.10 to 3.13."""
_PYTHON = {
    name: getattr(tracemalloc, name)
    for name in (
        "clear_traces",
        "get_object_traceback",
        "get_traceback_limit",
        "get_traced_memory",
        "get_tracemalloc_memory",
        "is_tracing",
        "reset_peak",
        "start",
        "stop",
        "take_snapshot",
    )
}
"""Python's own functions."""
_start, _stop, _is_tracing = _PYTHON["start"], _PYTHON["stop"], _PYTHON["is_tracing"]
_traced_memory, _reset_peak = _PYTHON["get_traced_memory"], _PYTHON["reset_peak"]
_tracer_bytes = _PYTHON["get_tracemalloc_memory"]
_PACKAGE = __name__.partition(".")[0]
_OF_MODULES = frozenset(id(function) for function in _PYTHON.values())


class TracedMemory(Protocol):
    """What a task measurement reads of ``tracemalloc``."""

    @property
    def session(self) -> int:
        """A number that changes whenever we start or stop; 0 while we do not trace."""

    def begin(self) -> int:
        """Start a new traced peak; traced bytes now."""

    def read(self) -> tuple[int, int]:
        """Traced bytes now, and the highest since `begin`."""


class TracemallocSession:
    """Starts ``tracemalloc`` where it does not run, and stops only what it started."""

    def __init__(
        self, frames: int, entering_threads: Callable[[], Collection[str]] | None = None
    ) -> None:
        """``entering_threads``: threads not of Python that may enter the interpreter, by name."""
        self.frames = frames
        """Of each block's stack: how many are kept, the most recent ones."""
        self._entering_threads = entering_threads or EnteringThreads().find
        self._unsafe_in_a_row = 0
        self.on_unsafe: Callable[[], None] = lambda: None
        """Called once, when the process is not traced because stopping is not safe."""
        self._ours = False
        self._sessions = 0
        self._limit_before = 1
        self._forks_followed = False
        self._changing = native_rlock()
        self._replaced: dict[str, Callable[..., Any]] = {}
        self._wrappers = {name: self._wrapper(name) for name in _PYTHON}
        self._delegating: set[tuple[str, int]] = set()
        self._modules_seen: set[str] = set()
        self._asked_directly = False
        self.asked: Callable[[], None] = lambda: None
        """Called where somebody else uses ``tracemalloc`` while we trace, before we stop."""
        self.free_lists = FreeLists()
        self.clears_free_lists = True
        """Whether `read` clears the free lists. Not where tracing is always on: what they hold
        was there before the run, too."""

    def start(self, frames: int | None = None) -> bool:
        """Trace from now on; ``False`` where the user's code traces or might."""
        # It is held while somebody asks: to wait for a snapshot would hold a run.
        if not self._changing.acquire(blocking=False):
            return False
        try:
            if _is_tracing() or self.is_asked_directly():
                return False
            try:
                self._replace()
                # Whoever asks from here on waits until we trace, and ends that.
                if _is_tracing():
                    self._put_back()
                    return False
                self._sessions += 1
                self._limit_before = _PYTHON["get_traceback_limit"]()
                self._ours = True
                _start(frames or self.frames)
            except BaseException:
                self._stop_ours()
                self._put_back()
                raise
            return True
        finally:
            self._changing.release()

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
        self.free_lists.give_back()
        if _is_tracing():
            _stop()
        if _PYTHON["get_traceback_limit"]() != self._limit_before:
            # It outlives the tracing that set it, only `start` sets it, and a task may ask.
            _start(self._limit_before)
            _stop()
        self._put_back()

    def _replace(self) -> None:
        for name, wrapper in self._wrappers.items():
            theirs = getattr(tracemalloc, name, None)
            if theirs is not wrapper and theirs is not None:
                self._replaced[name] = theirs
                setattr(tracemalloc, name, wrapper)

    def _put_back(self) -> None:
        for name, wrapper in self._wrappers.items():
            # The user's code may have replaced it meanwhile.
            if getattr(tracemalloc, name, None) is wrapper:
                setattr(tracemalloc, name, self._replaced.get(name, _PYTHON[name]))

    def stop_in_forks(self) -> None:
        """Do not trace what a traced task forks: nothing would ever stop it there."""
        if self._forks_followed or not hasattr(os, "register_at_fork"):
            return
        self._forks_followed = True
        reference = weakref.ref(self)

        def in_child() -> None:
            tracer = reference()
            if tracer is not None:
                tracer._changing = native_rlock()  # one of the parent's threads may hold it
                tracer._delegating.clear()
                tracer.stop()

        os.register_at_fork(after_in_child=in_child)

    @property
    def ours(self) -> bool:
        """Whether this session started the tracing that is on."""
        return self._ours

    @property
    def user_traces(self) -> bool:
        """Whether the user's code traces."""
        return not self._ours and bool(_is_tracing())

    @property
    def session(self) -> int:
        """A number that changes whenever we start or stop; 0 while we do not trace."""
        return self._sessions if self._ours and _is_tracing() else 0

    def is_asked_directly(self) -> bool:
        """Whether a module has a function of ``tracemalloc`` by a name of its own.

        It looks through the modules that are new since the last time.
        """
        modules = sys.modules
        if self._asked_directly or len(modules) == len(self._modules_seen):
            return self._asked_directly
        for name in _new_names(modules, self._modules_seen):
            self._modules_seen.add(name)
            module = modules.get(name)
            if name in ("tracemalloc", "_tracemalloc") or name.partition(".")[0] == _PACKAGE:
                continue
            found = getattr(module, "__dict__", None)
            if isinstance(found, dict) and not _OF_MODULES.isdisjoint(
                map(id, list(found.values()))
            ):
                self._asked_directly = True
        return self._asked_directly

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
        return int(_tracer_bytes()) // TRACE_BYTES

    def tracer_bytes(self) -> int:
        """What ``tracemalloc`` itself has allocated for its traces."""
        return int(_tracer_bytes())

    def reset_peak(self) -> None:
        """Start a new traced peak."""
        _reset_peak()

    def begin(self) -> int:
        """Start a new traced peak; traced bytes now."""
        _reset_peak()
        return self._in_use_bytes()

    def read(self) -> tuple[int, int]:
        """Traced bytes now, and the highest since `begin`."""
        peak_bytes = int(_traced_memory()[1]) - self.free_lists.taken_out_bytes(_is_traced)
        if self.clears_free_lists:
            self.free_lists.clear()
        in_use_bytes = self._in_use_bytes()
        return in_use_bytes, max(peak_bytes, in_use_bytes)

    def _in_use_bytes(self) -> int:
        """Of what is traced, without what we keep out of the free lists."""
        return int(_traced_memory()[0]) - self.free_lists.taken_out_bytes(_is_traced)

    def _wrapper(self, name: str) -> Callable[..., Any]:
        python = _PYTHON[name]

        def asked(*args: Any, **kwargs: Any) -> Any:
            if self._ours:
                self.asked()  # what we have found so far counts
            # Another thread may be about to start or to stop: until it has, what Python says is of
            # our tracing. None starts before Python has answered.
            with self._changing:
                self._stop_ours()
                # It may also be called when we do not trace, by code that kept it while we did, and
                # by the user's own replacement of the function, which is called below.
                theirs = self._replaced.get(name, python)
                inside = (name, native_thread())
                if theirs is python or inside in self._delegating:
                    return python(*args, **kwargs)
            self._delegating.add(inside)
            try:
                return theirs(*args, **kwargs)
            finally:
                self._delegating.discard(inside)

        asked.__name__ = asked.__qualname__ = name
        asked.__doc__ = python.__doc__
        return asked


def _new_names(modules: dict[str, ModuleType], seen: Collection[str]) -> list[str]:
    """Names of modules that were not seen before.

    It goes back from the newest one until many in a row were seen: to touch each module in a child
    would have its page copied, three megabytes in all.
    """
    found: list[str] = []
    seen_in_a_row = 0
    try:
        for name in reversed(modules):
            seen_in_a_row = seen_in_a_row + 1 if name in seen else 0
            if seen_in_a_row > _SEEN_IN_A_ROW:
                break
            if not seen_in_a_row:
                found.append(name)
    except RuntimeError:  # another thread imports
        return [name for name in list(modules) if name not in seen]
    return found


def _is_traced(thing: object) -> bool:
    return _get_object_traceback(thing) is not None


def _fixed(version: tuple[int, ...]) -> bool:
    """Whether gh-128679 is fixed: in 3.12.9, 3.13.2 and all of 3.14."""
    if version >= (3, 13):
        return version >= (3, 13, 2)
    return version >= (3, 12, 9)


def stop_is_fixed() -> bool:
    """Whether tracing may be stopped whatever threads there are (gh-128679)."""
    return _STOP_IS_FIXED


_STOP_IS_FIXED = _fixed(sys.version_info[:3])
