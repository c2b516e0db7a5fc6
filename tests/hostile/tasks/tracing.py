"""Tasks that measure memory themselves."""

from __future__ import annotations

import tracemalloc
from typing import Any

from tests.hostile.scenarios import hostile

start_kept_since_import: Any = None


def keep_functions() -> None:
    """As ``from tracemalloc import start`` would. In such a process no run is traced."""
    global start_kept_since_import
    start_kept_since_import = tracemalloc.start


def _grow() -> list[bytes]:
    return [bytes(1000 + number) for number in range(200)]


@hostile(undo=tracemalloc.stop)
def starts_tracing_if_it_is_off(here: str) -> list[object]:
    """What is on was found off: it is the task's own, until the task itself ends it."""
    began = not tracemalloc.is_tracing()
    if began:
        tracemalloc.start(5)
    kept = _grow()
    snapshot = tracemalloc.take_snapshot()
    seen = [began, tracemalloc.get_traceback_limit(), len(kept), bool(snapshot.traces)]
    tracemalloc.stop()
    return [*seen, tracemalloc.is_tracing()]


@hostile(pools=("prefork", "solo"), undo=tracemalloc.stop)
def measures_itself_by_its_peak(here: str) -> list[object]:
    """Thousands of bytes. In a pool of threads those of Celery's other threads are among them."""
    tracemalloc.start()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    size = len(bytes(300_000))
    kept = bytes(100_000)
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return [size, len(kept), (now - before) // 1000, (peak - before) // 1000]


@hostile(undo=tracemalloc.stop)
def leaves_its_tracing_on(here: str) -> list[int]:
    """The next run finds it on, with the frames that were asked for."""
    found = [tracemalloc.is_tracing(), tracemalloc.get_traceback_limit()]
    tracemalloc.start(7)
    return found


@hostile(undo=tracemalloc.stop)
def compares_snapshots(here: str) -> list[object]:
    """Of two snapshots the difference is what it made, at its own line."""
    tracemalloc.start(3)
    before = tracemalloc.take_snapshot()
    kept = _grow()
    after = tracemalloc.take_snapshot()
    tracemalloc.stop()
    first = max(after.compare_to(before, "lineno"), key=lambda each: each.size_diff)
    return [len(kept), first.count_diff, first.traceback[0].filename == __file__]


@hostile(undo=tracemalloc.stop)
def asks_where_an_object_was_made(here: str) -> list[object]:
    """Untraced it is nowhere; traced it is where the task made it."""
    first = tracemalloc.get_object_traceback(_grow()[0])
    tracemalloc.start()
    where = tracemalloc.get_object_traceback(_grow()[0])
    tracemalloc.stop()
    return [first is None, where is not None]


@hostile(undo=tracemalloc.stop)
def clears_traces(here: str) -> list[object]:
    """What was traced until then is forgotten."""
    tracemalloc.start()
    kept = _grow()
    tracemalloc.clear_traces()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return [len(kept), size < 10_000]


@hostile(undo=tracemalloc.stop, keeps_functions=True)
def starts_by_a_name_of_its_own(here: str) -> list[int]:
    """A function that was imported before we could replace it."""
    start_kept_since_import(4)
    kept = _grow()
    seen = [tracemalloc.is_tracing(), tracemalloc.get_traceback_limit(), len(kept)]
    tracemalloc.stop()
    return seen


@hostile()
def stops_what_it_did_not_start(here: str) -> bool:
    """That is harmless."""
    tracemalloc.stop()
    return tracemalloc.is_tracing()


@hostile(undo=tracemalloc.stop, keeps_functions=True)
def compares_functions(here: str) -> bool:
    """The module is as it was imported."""
    return tracemalloc.start is start_kept_since_import
