"""The census of one process: which types have more objects after some runs, and what holds them.

Somebody asks for it (`ipc/commands.py`). It compares two moments between runs, and takes its steps
between runs too, so that none is inside a task. A step is short enough for the order's allowance,
or it waits for the next run, or the census is not taken: a list of all objects takes 20 to 40 ns an
object and cannot be interrupted. So in a process of some two million objects a census can be taken
within the default of 0.25 s, in one of ten million with two seconds a run, if somebody allows that.
A step has the allowance in CPU time of this thread; on a busy machine it lasts longer, as the run
itself does. Several steps are taken before one run only while the clock allows it.

**Why not on a copy of the process.** A fork would hold a run for 10 ms a GiB only. But `os.fork`
runs what libraries have registered (exporters start their threads anew, and export twice), a fork
of the C library alone stands still as soon as another thread had asked for the interpreter's lock,
and counting references writes to each object: it takes the process's memory once more, just where
that is scarce.

**Floors.** Both moments come right after a full collection if that is short enough, and after one
of the young objects otherwise; never where the user has disabled or frozen the collector.

**Memory**: 8 bytes an object from the first moment to the last (identities, to tell new objects
from old ones), as much again for the list of all objects within a step, and 4 MiB. A child that has
not collected all objects since it was forked gets a copy of its own of those, as at its first full
collection. It is not taken if that would leave less than 10 % of any limit. Between two steps no
object is kept.
"""

from __future__ import annotations

import gc
import heapq
import math
import os
import sys
import time
from array import array
from collections.abc import Callable, Iterator

from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import ObjectsCounted, TypeGrown
from otel_celery_memory.probes.allocators import give_back_free_memory
from otel_celery_memory.probes.limits import room_bytes
from otel_celery_memory.probes.objects import (
    HolderSearch,
    NewObjects,
    count_by_type,
    grown_containers,
    ids_of,
    lengths,
    live_objects,
    module_namespaces,
    new_objects,
)
from otel_celery_memory.probes.procfs import read_shared, read_size
from otel_celery_memory.worker.measuring.run_counters import Collector
from otel_celery_memory.worker.record_writer import RecordSink

TYPES_MAX = 8
"""Types of which the growth is sent."""
CONTAINERS_MAX = 4
"""Containers of text, numbers and the like of which the growth is sent."""
_GROWTH_MIN = 5
"""Less growth of a type is not told: Celery's own objects come and go."""
_BYTES_A_BLOCK = 16
_BYTES_BESIDES = 4 << 20
_LIMIT_SHARE = 0.9
_FULL, _YOUNG = 2, 1
_NEXT_RUN = ""
"""Not a step: it waits for the next run."""
_OURS = "otel_celery_memory."
_LISTED_NS, _COUNTED_NS = 45, 75
"""What it takes to list one object, and to count it by its type."""
_PACKED = 0.7
"""Before one run, steps are taken one after the other for so much of the allowance at most."""
_MARGIN = 1.1
"""A step takes so much longer, at most, than it did before."""
_NS_AN_OBJECT = {
    **{"collect": 140, "identify": 70},
    **{"measure": 150, "find": 130, "climb": 110},
}
"""What the steps take for each object that the collector tracks, before one was measured."""
_OBJECTS_A_BLOCK = 0.45
"""How many such objects there are for each block of the interpreter's allocator, before they are
counted: 0.3 to 0.6."""


def shared_bytes(pid: int) -> int:
    """What a process shares with others, in bytes: a child most of it with the main process."""
    size, unique_bytes = read_size(pid), read_shared(pid).unique_bytes
    return 0 if size is None or unique_bytes is None else max(size.rss_bytes - unique_bytes, 0)


class _NotTakenError(Exception):
    """The census is not taken; the message says why."""


class ObjectCensus:
    """The census of one process; `boundary` is called before each run that is not plain."""

    def __init__(
        self,
        slot: int,
        sink: RecordSink,
        page: ControlPage,
        collector: Collector | None = None,
        room: Callable[[int, float], int | None] = room_bytes,
        shared: Callable[[int], int] = shared_bytes,
        clock_s: Callable[[], float] = time.monotonic,
        cpu_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        self._slot = slot
        self._sink = sink
        self._page = page
        self._collector = collector or Collector()
        self._room_bytes, self._shared_bytes = room, shared
        self._clock_s = clock_s
        self._cpu_ns = cpu_ns
        self._pid = os.getpid()
        self._seen = b""
        self._last = 0
        self._orders: Commands | None = None
        self._steps: Iterator[str] | None = None
        self._due = _NEXT_RUN
        """The next step."""
        self._runs = self._objects = self._growth = 0
        self._collects = True
        self._hold_ns = self._deadline_ns = self._allowance_ns = 0
        self._ns: dict[str, float] = {}
        # A child that starts in the middle of a census takes part in it.
        self._read_orders()

    @property
    def active(self) -> bool:
        """Whether a census is ordered that is not complete, or orders are not read yet."""
        return self._orders is not None or self._page.commands_version() != self._seen

    def boundary(self, task: str) -> bool:
        """A run of `task` is about to start, and no other runs; whether something was done."""
        if self._page.commands_version() != self._seen:
            self._read_orders()
        orders = self._orders
        if orders is None:
            return False
        if self._steps is None:
            if self._clock_s() >= orders.until_s:
                self._begin(None)
                return False
            if orders.task not in ("", task):
                return False
            self._steps = self._take(orders)
        began_ns = time.perf_counter_ns()
        try:
            worked = self._go_on(orders)
        except _NotTakenError as why:
            self._end(orders, str(why))
            return True
        except BaseException:
            self._begin(None)  # a time limit, or a fault of ours
            raise
        self._hold_ns = max(self._hold_ns, time.perf_counter_ns() - began_ns)
        if self._steps is None:
            self._end(orders)
        self.run_starts(task)
        return worked

    def run_starts(self, task: str) -> None:
        """A run of `task` starts, beside others where `boundary` is not called for it."""
        if self._orders is not None and self._steps is not None:
            self._runs += self._orders.task in ("", task)

    def down(self) -> None:
        """The process ends; the next one in its slot takes the census anew."""
        orders, steps = self._orders, self._steps
        if orders is not None and steps is not None:
            self._send_end(orders, f"the process ended after {self._runs} runs")
        self._begin(None)

    def _read_orders(self) -> None:
        number, orders = self._page.commands_version(), self._page.read_commands()
        if orders is None:
            return  # they are being written
        self._seen = number
        if orders.census in (0, self._last) or self._page.captured(self._slot, orders.census):
            return  # the process before in this slot took it
        self._last = orders.census
        self._begin(orders)

    def _begin(self, orders: Commands | None) -> None:
        """Begins a census, or none; what is left of another one is dropped."""
        self._orders, self._steps, self._due = orders, None, _NEXT_RUN
        self._runs = self._objects = self._growth = self._hold_ns = 0
        self._collects = True
        self._ns = dict(_NS_AN_OBJECT)

    def _go_on(self, orders: Commands) -> bool:
        """Takes the steps for which there is time before this run; whether there were any."""
        self._allowance_ns = int(orders.allowance_s * 1e9)
        self._deadline_ns = time.perf_counter_ns() + int(_PACKED * self._allowance_ns)
        worked = False
        while self._steps is not None:
            kind = self._due
            if kind != _NEXT_RUN:
                self._require(kind)
                if worked and time.perf_counter_ns() + self._needs_ns(kind) > self._deadline_ns:
                    break
                worked = True
            before_ns = self._cpu_ns()
            due = next(self._steps, None)
            if kind in self._ns and kind != "climb":  # of that it depends on the time left
                took_ns = self._cpu_ns() - before_ns
                self._ns[kind] = _MARGIN * took_ns / self._tracked()
            if due is None:
                self._steps = None
                break
            self._due = due
            if due == _NEXT_RUN:
                break
        return worked

    def _needs_ns(self, kind: str) -> float:
        if kind == "count":
            return self._tracked() * (_LISTED_NS + _COUNTED_NS / self._stride())
        return self._ns[kind] * self._tracked()

    def _tracked(self) -> float:
        return self._objects or max(sys.getallocatedblocks() * _OBJECTS_A_BLOCK, 1)

    def _fits(self, kind: str) -> bool:
        return self._needs_ns(kind) <= self._allowance_ns

    def _require(self, *kinds: str) -> None:
        """Raises `_NotTakenError` where one of these steps takes too long."""
        longest_ns = max(map(self._needs_ns, kinds))
        if longest_ns > self._allowance_ns:
            raise _NotTakenError(
                f"with about {self._tracked():,.0f} objects, a step would hold a run for "
                f"{longest_ns / 1e9:.2f} s: allow a larger max_added_latency than "
                f"{self._allowance_ns / 1e9:g}"
            )

    def _take(self, orders: Commands) -> Iterator[str]:
        """The whole census: yields what the next step is, which it takes when it is asked for more.

        What it keeps meanwhile are numbers and identities.
        """
        self._check_room()
        yield from self._floor()
        yield "count"
        before = self._count()
        self._runs = 0
        total = self._objects
        self._require("identify", "find", "climb")
        yield "identify"
        old = ids_of(gc.get_objects())
        sizes: dict[int, int] | None = None
        measured_at = 0
        if self._fits("measure"):
            yield "measure"
            sizes, measured_at = lengths(live_objects()), self._runs
        while self._clock_s() < orders.until_s and not 0 < orders.runs <= self._runs:
            yield _NEXT_RUN
        yield from self._floor()
        yield "count"
        now = self._count()
        runs = self._runs
        self._growth = self._objects - total
        least = max(_GROWTH_MIN, runs // 2)
        growth = {kind: now[kind] - before.get(kind, 0) for kind in now}
        most = heapq.nlargest(TYPES_MAX, growth, key=growth.__getitem__)
        yield "find"
        enough = {kind: growth[kind] for kind in most if growth[kind] >= least}
        listed: Callable[[], list[object]] = gc.get_objects
        grown = [(row, runs, listed) for row in self._new(now, enough, old)]
        if sizes is not None and self._fits("measure"):
            yield "measure"
            ours = frozenset(map(id, (before, now, growth, sizes)))
            # Their first moment was some runs later, and so is the second one.
            longer = self._containers(sizes, ours)
            grown += [(row, self._runs - measured_at, live_objects) for row in longer]
        del old
        known: dict[int, str] = {}
        for row, of_runs, list_objects in grown:
            search = HolderSearch(row.ids, known)
            while not search.done:
                yield "climb"
                search.climb(list_objects(), module_namespaces(), self._time_for_a_level())
            self._send_row(orders, row, of_runs, search)
        self._runs = runs

    def _check_room(self) -> None:
        needs_bytes = _BYTES_BESIDES + _BYTES_A_BLOCK * sys.getallocatedblocks()
        if not self._collector.may_collect_fully():
            # Each object is written to, and none was since the fork.
            needs_bytes += self._shared_bytes(self._pid)
        room = self._room_bytes(self._pid, _LIMIT_SHARE)
        if room is not None and needs_bytes > room:
            raise _NotTakenError(
                f"it would take {needs_bytes >> 20} MiB, and a limit of memory is near"
            )

    def _floor(self) -> Iterator[str]:
        allowed = self._collector.allowed()
        fits = self._fits("collect")
        if allowed and fits:
            yield "collect"
            self._collector.collect(_FULL)
        self._collects = self._collects and allowed and fits

    def _stride(self) -> int:
        """Each so many-th object is counted by its type: all of them, if there is time for that."""
        spare_ns = self._allowance_ns - _LISTED_NS * self._tracked()
        return max(math.ceil(_COUNTED_NS * self._tracked() / spare_ns), 1) if spare_ns > 0 else 1

    def _count(self) -> dict[int, int]:
        if self._collector.allowed():
            self._collector.collect(_YOUNG)
        objects = gc.get_objects()
        self._objects = len(objects)
        return count_by_type(objects, self._stride())

    def _new(
        self, now: dict[int, int], growth: dict[int, int], old: array[int]
    ) -> list[NewObjects]:
        found = new_objects(gc.get_objects(), now, growth, old)
        # Where a part is counted, a type may seem to have grown of which there is no new object.
        return [row for row in found if row.ids and not row.type_name.startswith(_OURS)]

    def _containers(self, before: dict[int, int], ours: frozenset[int]) -> list[NewObjects]:
        objects = live_objects()
        return grown_containers(objects, before, lengths(objects), CONTAINERS_MAX, ours)

    def _time_for_a_level(self) -> Callable[[], bool]:
        """Whether there is time for one more level, which takes as long as the one before."""
        marks = [time.perf_counter_ns()]

        def goes_on() -> bool:
            marks.append(time.perf_counter_ns())
            return marks[-1] + (marks[-1] - marks[-2]) <= self._deadline_ns

        return goes_on

    def _send_row(self, orders: Commands, row: NewObjects, runs: int, search: HolderSearch) -> None:
        holder, alike = search.chain()
        self._sink.send(
            TypeGrown(
                *(self._pid, orders.census, runs, row.objects, row.growth),
                *(search.sampled, alike, row.type_name, holder),
            )
        )

    def _end(self, orders: Commands, problem: str = "") -> None:
        self._send_end(orders, problem)
        self._page.count_captured(self._slot, orders.census)
        self._begin(None)
        give_back_free_memory()

    def _send_end(self, orders: Commands, problem: str) -> None:
        self._sink.send(
            ObjectsCounted(
                *(self._pid, time.time_ns(), orders.census, self._runs, self._objects),
                *(self._growth, int(self._collects), self._hold_ns, problem),
            )
        )
