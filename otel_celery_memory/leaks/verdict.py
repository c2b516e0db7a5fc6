"""A verdict: what is concluded of one leak, as a frozen value.

Sizes are bytes; what is counted (descriptors, threads, processes, messages) is a number of them,
as `Kind.unit` says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

_BOUND = re.compile(r"lru_cache\(maxsize=(\d+)\)")


class State(str, Enum):
    """How sure it is: the values of ``celery.memory.leak.state``.

    ``SUSPECTED``: it grows beyond chance; a cache that fills up does, too. ``LEAKING``: it has
    grown beyond what a cache, a pool or warm-up explains, and does not slow down. ``ENDED``: it
    stands still.
    """

    SUSPECTED = "suspected"
    LEAKING = "leaking"
    ENDED = "ended"


class Kind(str, Enum):
    """What grows: the values of ``celery.memory.leak.kind``."""

    PYTHON = "python"
    NATIVE = "native"
    MAPPING = "mapping"
    FRAGMENTATION = "fragmentation"
    FILE_DESCRIPTORS = "file_descriptors"
    THREADS = "threads"
    PROCESSES = "processes"
    COPY_ON_WRITE = "copy_on_write"
    MESSAGES = "messages"
    GARBAGE = "garbage"

    @property
    def unit(self) -> str:
        """What a rate of this kind counts: ``By`` or a thing."""
        return _UNITS.get(self, "By")


_UNITS = {
    Kind.FILE_DESCRIPTORS: "file",
    Kind.THREADS: "thread",
    Kind.MESSAGES: "message",
}


class Where(str, Enum):
    """Whose memory grows: the values of ``celery.memory.leak.where``.

    ``IDLE`` is a process while none of its tasks runs, as in a thread of the application's.
    """

    TASK = "task"
    RECEIVER = "receiver"
    IDLE = "idle"
    MAIN = "main"
    DESCENDANT = "descendant"


@dataclass(frozen=True)
class Interval:
    """A number with what it is at least and at most, at 95 %."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True)
class Place:
    """The line of code that allocates what stays. ``share`` of the growth is found there."""

    name: str
    path: str
    line: int
    function: str | None
    via: str
    share: float


@dataclass(frozen=True)
class Holder:
    """What holds the objects: names of modules, types and attributes, the root first.

    ``types`` are the types that multiply, the most numerous first, each with how many more objects
    a run leaves: ``("dict", 3.0)``. ``share`` of all objects that multiply have a name that holds
    them, this one or another: what is held is no garbage.
    """

    chain: str
    types: tuple[tuple[str, float], ...] = ()
    share: float = 0.0

    @property
    def bound(self) -> int | None:
        """Of so many entries, if it is an ``lru_cache`` that has a bound."""
        found = _BOUND.search(self.chain)
        return None if found is None else int(found[1])


@dataclass(frozen=True)
class Forecast:
    """When the nearest limit is reached: ``seconds`` from ``Verdict.now_s`` on.

    ``limit`` is a value of ``celery.memory.limit.kind``. A bound of infinity means that it may
    never be.
    """

    slot: str
    limit: str
    limit_bytes: int
    seconds: Interval


@dataclass(frozen=True)
class Verdict:
    """What is concluded of one leak.

    ``rate`` is how much each run leaves behind, in the unit of the kind, or ``None`` where it is
    not known by run; ``rate_per_s`` is how fast the processes grow by it, all together. ``runs``
    and ``processes`` are what it was seen in, ``grown`` how much came together since ``since_s``.
    ``explained`` is the share of what the processes have grown by that this verdict explains,
    ``None`` where that cannot be compared. Times are seconds of the clock that levels came with.
    """

    state: State
    kind: Kind
    where: Where
    task: str
    rate: Interval | None
    rate_per_s: float
    runs: int
    processes: int
    since_s: float
    now_s: float
    grown: float
    explained: float | None = None
    place: Place | None = None
    holder: Holder | None = None
    condition: str = ""
    """In which runs it happens, if not in all: ``"in runs that fail"``."""
    forecast: Forecast | None = None
    max_tasks_per_child: int | None = None
    max_memory_per_child_bytes: int | None = None
    reasons: tuple[str, ...] = ()
    """Why it is in this state, each a short clause."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells one leak from another: what grows, where, and the task.

        Of what kind the growth of a heap is may become known later.
        """
        kind = Kind.PYTHON if self.kind in (Kind.NATIVE, Kind.GARBAGE) else self.kind
        return kind.value, self.where.value, self.task
