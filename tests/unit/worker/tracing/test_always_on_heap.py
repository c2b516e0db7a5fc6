"""Growth of the whole live heap since the process was warm, looked at rarely."""

from __future__ import annotations

import os

from otel_celery_memory.ipc.records import Site, SitesWindow, WindowKind
from otel_celery_memory.probes.sites import LiveSites, SiteFilter
from otel_celery_memory.worker.tracing.always_on import WARM_UP_TASKS, HeapDiff
from tests.unit.fakes import FakeClock

PID = os.getpid()
APP = "/srv/app/feeds.py"


class Heap:
    """Live sites that a look takes `cost_s` of the clock to see; an interval is 60 s."""

    def __init__(self, cost_s: float = 0.0) -> None:
        self.cost_s = cost_s
        self.clock = FakeClock()
        self.sites: LiveSites = {((APP, 1),): (100, 1)}
        self.looks = self.settled = 0
        self.baseline = HeapDiff(SiteFilter(), 60.0, self._read, self._release, self.clock)

    def _read(self) -> LiveSites:
        self.looks += 1
        self.clock.move(self.cost_s)
        return dict(self.sites)

    def _release(self) -> None:
        self.settled += 1

    def tasks(self, count: int, every_s: float = 1.0) -> list[object]:
        """So many tasks start; the records of these, without their time."""
        found: list[object] = []
        for _ in range(count):
            self.clock.move(every_s)
            for record in self.baseline.task_starts():
                window = isinstance(record, SitesWindow)
                found.append(record._replace(time_ns=0) if window else record)  # type: ignore[call-arg]
        return found

    def warm(self) -> None:
        self.tasks(WARM_UP_TASKS)
        assert self.looks == 1


def test_growth_is_against_the_baseline_and_not_against_the_look_before() -> None:
    heap = Heap()
    heap.warm()
    for size in (700, 900):
        heap.sites[((APP, 2),)] = (size, 3)
        found = heap.tasks(60)
        assert found == [
            SitesWindow(PID, 0, WindowKind.PROCESS, 60 if size == 700 else 120, 0, 0, 1, 0, 0, ""),
            Site(PID, WindowKind.PROCESS, 0, size, 3, 2, 0, "", APP, ""),
        ]


def test_there_is_no_baseline_before_a_hundred_tasks_and_one_interval() -> None:
    few, fast = Heap(), Heap()
    few.tasks(WARM_UP_TASKS - 1, every_s=10.0)
    fast.tasks(5_000, every_s=0.01)
    assert (few.looks, fast.looks) == (0, 0)
    few.tasks(1)
    fast.tasks(1, every_s=60.0)
    assert (few.looks, fast.looks) == (1, 1)


def test_what_was_there_when_it_was_warm_is_no_growth() -> None:
    heap = Heap()
    heap.warm()
    assert heap.tasks(60) == [SitesWindow(PID, 0, WindowKind.PROCESS, 60, 0, 0, 0, 0, 0, "")]


def test_what_shrank_is_told_with_its_sign() -> None:
    heap = Heap()
    heap.warm()
    heap.sites.clear()
    assert heap.tasks(60)[1:] == [Site(PID, WindowKind.PROCESS, 0, -100, -1, 1, 0, "", APP, "")]


def test_looking_takes_at_most_a_fiftieth_of_the_time() -> None:
    heap = Heap(cost_s=10.0)
    heap.tasks(20_000)
    assert heap.looks > 10
    assert heap.looks * heap.cost_s <= heap.clock.now / 50 + 2 * heap.cost_s


def test_the_heap_is_released_after_each_read_and_not_between() -> None:
    heap = Heap()
    heap.tasks(400)
    assert heap.settled == heap.looks > 3
