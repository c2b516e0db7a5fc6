"""One window of tracing in a run of a task: it is opened, looked at and closed, by any thread.

Whole runs are looked at twice: at the task's end, when its return value is still alive, and a
little later, when the return value is gone but the next task's arguments may be there. Only what
both looks show was left behind by the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from otel_celery_memory.probes.native_threads import native_lock
from otel_celery_memory.probes.sites import (
    LiveSites,
    Traces,
    group_traces,
    no_collections,
    still_alive,
    take_traces,
)
from otel_celery_memory.probes.tracemalloc_session import HeapTracer

_SECOND_LOOK_MAX_TRACES = 20_000


@dataclass(frozen=True)
class Traced:
    """What one window of tracing found, and what it cost.

    ``cpu_s`` passed under tracing, ``extra_s`` in looking at the result. ``whole`` is a run seen
    from its start; ``aborted`` one whose tracing was stopped before its end. What is alive at the
    end of anything but a whole run not aborted is not yet left behind.
    """

    sites: LiveSites
    cpu_s: float
    extra_s: float
    whole: bool
    aborted: bool


class TracingWindow:
    """The windows of one run, one after the other; `found` is called for each that is closed."""

    def __init__(
        self,
        tracer: HeapTracer,
        found: Callable[[Traced], None],
        cpu_s: Callable[[], float],
        *,
        whole: bool,
    ) -> None:
        self._tracer = tracer
        self._found = found
        self._cpu_s = cpu_s
        self.whole = whole
        """Whether the next window, or the one that is open, is of the whole run."""
        self.began_s = cpu_s()
        self.was_opened = False
        self.none_follows = False
        """Whether the run is over: no window is opened from then on."""
        self._open = False
        self._first: Traces | None = None
        self._lock = native_lock()

    def open(self) -> bool:
        """Begin to trace; ``False`` where the run is over or somebody traces already."""
        with self._lock:
            self.began_s = self._cpu_s()
            if self.none_follows:
                return False
            # First: a time limit that strikes behind `start` must leave something to close.
            self._open = True
            self._open = self._tracer.start()
            self.was_opened |= self._open
            return self._open

    def look_first(self) -> None:
        """At the task's end: remember what is alive, if that is not too much to look at twice."""
        with self._lock:
            if not self._open or not self._tracer.ours:
                return
            if self._tracer.live_traces() <= _SECOND_LOOK_MAX_TRACES:
                self._tracer.free_lists.clear()
                with no_collections():
                    self._first = take_traces()
                return
        self.close()

    def close(self, *, aborted: bool = False) -> None:
        """End the window that is open, if one is: stop tracing first, then see what there is."""
        with self._lock:
            if not self._open:
                return
            try:
                # Somebody may have ended it, or begun his own.
                stolen = not (self._tracer.ours and self._tracer.session)
                first, self._first = self._first, None
                ended_s = self._cpu_s()
                sites = {} if stolen else self._look(first)
            finally:
                # A time limit may strike while we look.
                self._tracer.stop()
                self._open = False
        now_s = self._cpu_s()
        whole, self.whole = self.whole, False
        self._found(
            Traced(sites, ended_s - self.began_s, now_s - ended_s, whole, aborted or stolen)
        )

    def _look(self, first: Traces | None) -> LiveSites:
        self._tracer.free_lists.clear()
        with no_collections():
            traces = take_traces()
            self._tracer.stop()
            sites = group_traces(traces)
            return sites if first is None else still_alive(group_traces(first), sites)
