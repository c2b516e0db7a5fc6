"""What is in the zoo: each root cause that somebody found, with the cases that have its shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.truth.case import Shape, shapes
from tests.zoo import cases

HELD = "Leaks held by Python objects"
NOT_HELD = "Not held by Python objects"
HARD = "Hard to see"
HEALTHY = "Must not alarm"

_ROWS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    HELD: {
        "a global list or dict that only grows": (
            "a list that only grows",
            "a dict that only grows",
            "four tasks",
            "four tasks: leak and pandas",
            "four tasks: leak and sleep",
            "four tasks: leak and failures",
            "ids seen, in a set",
            "a buffer that grows",
            "generators suspended",
            "a long task that keeps much",
            "a slot replaced, a deque bounded, a real leak",
            "overlapping in gevent",
            "overlapping in threads",
            "a mix with partials",
            "a mix with partials, jemalloc",
        ),
        "a cache without a bound, on a function and on a method": (
            "a cache without a bound",
            "a leak in children that are recycled",
            "a leak in a worker without children",
            "a cache on a method",
        ),
        "callbacks, signal receivers, logging handlers, hooks at exit": (
            "finalizers through a library",
            "signal receivers added",
            "handlers through a library",
            "hooks at exit",
            "after_return of the task's class",
        ),
        "a class made in each run": ("a class a run",),
        "an exception with its traceback and frames": ("exceptions kept",),
        "retry(exc=...) with a payload": ("retries with a payload",),
        "a query log of a framework in debug mode": ("a query log in debug mode",),
        "connections, sessions or clients never closed": (
            "native memory held by objects",
            "clients made in each run",
            "sessions with TLS kept",
        ),
        "an identity map": ("an identity map",),
        "thread-locals of threads that never end": ("thread-locals of a thread",),
        "threads or executors never stopped": (
            "a thread a run",
            "timers through a library",
            "a mix with timers",
            "a mix with timers, jemalloc",
        ),
        "event loops and their tasks never closed": (
            "event loops never closed",
            "coroutines queued on a loop",
        ),
        "AsyncResult objects and subscriptions kept": ("results kept", "subscriptions kept"),
        "revoked ids or an ETA queue in the main process": (
            "messages with an ETA",
            "a set of revoked ids",
        ),
        "the unbounded queue of a telemetry SDK": ("a telemetry queue",),
        "figures never closed": ("figures never closed",),
        "data frames kept in a module": ("data frames kept",),
        "reference cycles without a collector": ("cycles, and no collector",),
        "context variables and callbacks of weak references": (
            "contexts kept",
            "callbacks of weak references",
        ),
        "a cache of patterns or texts, fed with unique strings": (
            "patterns of unique strings",
            "warnings remembered",
        ),
        "receivers of Celery's signals": (
            "a receiver of task_prerun",
            "a receiver of task_postrun",
            "a receiver that connects",
        ),
    },
    NOT_HELD: {
        "memory of C never freed": (
            "native memory lost",
            "native memory lost, with jemalloc",
            "a mix with memory of C",
            "a mix with memory of C, jemalloc",
        ),
        "mmap kept": ("mappings kept",),
        "open files, sockets, pipes kept": (
            "files kept open",
            "sockets kept open",
            "pipes left open",
        ),
        "segments of shared memory": ("shared memory segments",),
        "temporary files on a tmpfs": ("files on a tmpfs",),
        "processes left behind": ("processes left behind",),
    },
    HARD: {
        "one run in a hundred leaks": ("one run in a hundred",),
        "only one argument's value leaks": ("one argument's value",),
        "only failing runs leak": ("only runs that fail",),
        "100 bytes a run": ("100 bytes a run", "one small dict a run", "one tuple a run"),
        "in the main process, or in a thread while no task runs": (
            "the main process keeps",
            "a thread beside the tasks",
        ),
        "one of two tasks leaks, the other is more frequent and noisy": (
            "a quiet leak beside a loud task",
        ),
        "one of three hundred names leaks": ("three hundred names",),
        "a leak that starts late": ("a leak that starts late",),
        "a leak that is mended while it is watched": ("a leak that is mended",),
        "two places or two tasks, 90 to 10": ("two places, 90 to 10", "two leaks, 90 to 10"),
        "the place lies in a library": ("documents built by a library",),
    },
    HEALTHY: {
        "lazy imports in the first runs": ("late imports, recycled", "a late import of pandas"),
        "a bounded cache that fills up, then flat": (
            "a cache that fills up",
            "a small cache that fills up",
            "a cache that is full",
            "a library's cache that is full",
        ),
        "deque(maxlen)": ("a slot replaced, a deque bounded, no leak",),
        "a connection pool that grows to its maximum": ("a pool at its maximum",),
        "sizes with heavy tails": ("sizes with heavy tails",),
        "spikes of 300 MB, freed": ("spikes of 300 MB",),
        "a sawtooth of cyclic garbage": ("cycles through frames",),
        "fragmentation that plateaus": (
            "threads that end, and their arenas",
            "a run that balloons",
        ),
        "a child that inherits a large parent": ("a large parent",),
        "a big return value": ("a big return value",),
        "recycling by max_tasks_per_child": ("recycled after twenty runs",),
        "a slow drift within the noise": ("a slow drift",),
        "tasks that keep nothing": (
            "10,000 runs of healthy tasks",
            "four tasks: no leak",
            "beside another instrumentation",
        ),
        "tasks that end their process": (
            "tasks that end their process",
            "a message that kills again and again",
        ),
        "messages and processes that wait, and are no more after a while": (
            "messages that wait for their time",
            "processes left by a time limit",
        ),
    },
}


@dataclass(frozen=True)
class Row:
    """A case, with the root cause that it is one of, and its part of the zoo."""

    part: str
    cause: str
    shape: Shape


def rows() -> tuple[Row, ...]:
    """All rows, in order; `KeyError` if one names a case that does not exist."""
    found = {shape.case.name: shape for shape in (*shapes(), *shapes(cases))}
    return tuple(
        Row(part, cause, found[name])
        for part, causes in _ROWS.items()
        for cause, names in causes.items()
        for name in names
    )
