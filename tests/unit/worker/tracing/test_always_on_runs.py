"""Windows lie from one start of a task to the next one's, and looking is kept rare."""

from __future__ import annotations

import os

from otel_celery_memory.ipc.records import Record, Site, SitesWindow, WindowKind
from otel_celery_memory.probes.sites import LiveSites, SiteFilter
from otel_celery_memory.worker.tracing.always_on import RunDiff
from tests.unit.fakes import FakeClock

PID = os.getpid()
APP = "/srv/app/feeds.py"


class Heap:
    """Live sites that a look takes `cost_s` of the clock to see."""

    def __init__(self, cost_s: float = 0.0) -> None:
        self.cost_s = cost_s
        self.clock = FakeClock()
        self.sites: LiveSites = {}
        self.looks = 0
        self.settled_after: list[int] = []
        self.windows = RunDiff(SiteFilter(), self._read, release=self._release, clock_s=self.clock)

    def _read(self) -> LiveSites:
        self.looks += 1
        self.clock.move(self.cost_s)
        return dict(self.sites)

    def _release(self) -> None:
        self.settled_after.append(self.looks)

    def starts(self, task: str, previous: str = "") -> list[tuple[object, ...]]:
        """A task starts; the records of the window before it, without their time."""
        return without_time(self.windows.task_starts(task, previous))


def without_time(records: list[Record]) -> list[tuple[object, ...]]:
    """The records as tuples, the wall clock's part left out."""
    return [
        (record.pid, record.sites, record.task) if isinstance(record, SitesWindow) else record
        for record in records
    ]


def test_what_a_run_left_alive_is_told_when_the_next_task_starts() -> None:
    heap = Heap()
    heap.sites = {((APP, 1),): (100, 1)}
    assert heap.starts("a") == []
    heap.sites = {((APP, 1),): (100, 1), ((APP, 2),): (900, 3)}
    assert heap.starts("b", "a") == [
        (PID, 1, "a"),
        Site(PID, WindowKind.COMPLETE, 0, 900, 3, 2, 0, "a", APP, ""),
    ]


def test_what_is_alive_after_a_run_that_raised_is_told_as_of_a_slice() -> None:
    heap = Heap()
    heap.starts("a")
    heap.windows.run_raised()
    heap.sites = {((APP, 2),): (900, 3)}
    assert heap.starts("a", "a")[1:] == [
        Site(PID, WindowKind.PARTIAL, 0, 900, 3, 2, 0, "a", APP, "")
    ]
    heap.sites = {((APP, 2),): (950, 4)}
    assert heap.starts("b", "a")[1:] == [
        Site(PID, WindowKind.COMPLETE, 0, 50, 1, 2, 0, "a", APP, "")
    ]


def test_a_run_that_left_nothing_is_a_window_without_sites() -> None:
    heap = Heap()
    heap.starts("a")
    assert heap.starts("b", "a") == [(PID, 0, "a")]


def test_a_stack_is_told_one_place_a_line_most_recent_call_last() -> None:
    heap = Heap()
    heap.starts("a")
    heap.sites = {((APP, 2), ("/srv/app/tasks.py", 20)): (900, 3)}
    assert heap.starts("b", "a")[1:] == [
        Site(PID, WindowKind.COMPLETE, 0, 900, 3, 2, 0, "a", APP, f"/srv/app/tasks.py:20\n{APP}:2")
    ]


def test_the_largest_changes_of_both_signs_are_told_and_no_more_than_forty() -> None:
    heap = Heap()
    heap.sites = {((APP, line),): (line * 10, 1) for line in range(1, 51)}
    heap.starts("a")
    heap.sites = {((APP, line),): (line * 11, 1) for line in range(101, 151)}
    window, *sites = heap.windows.task_starts("b", "a")
    assert isinstance(window, SitesWindow)
    sizes = [site.size_bytes for site in sites if isinstance(site, Site)]
    assert window.sites == len(sizes) == 40
    assert sizes == [line * 11 for line in range(150, 110, -1)]
    heap.sites = {}
    _, *gone = heap.windows.task_starts("c", "b")
    assert [site.size_bytes for site in gone if isinstance(site, Site)] == [-size for size in sizes]


def test_a_window_whose_task_is_not_the_one_before_belongs_to_nobody() -> None:
    heap = Heap()
    heap.starts("a")
    heap.sites = {((APP, 2),): (900, 3)}
    assert heap.starts("b", "") == []
    assert heap.starts("c", "a") == []
    assert heap.starts("d", "c") == [(PID, 0, "c")]


def test_one_read_closes_a_window_and_opens_the_next_and_free_memory_is_released_after_it() -> None:
    heap = Heap()
    heap.starts("a")
    heap.starts("b", "a")
    heap.windows.close("b")
    assert (heap.settled_after, heap.looks) == ([1, 2], 3)


def test_the_last_window_is_closed_by_the_process_s_end_and_only_once() -> None:
    heap = Heap()
    heap.starts("a")
    heap.sites = {((APP, 2),): (900, 3)}
    assert without_time(heap.windows.close("a")) == [
        (PID, 1, "a"),
        Site(PID, WindowKind.COMPLETE, 0, 900, 3, 2, 0, "a", APP, ""),
    ]
    assert heap.windows.close("a") == []


def test_after_a_window_there_is_none_for_twenty_times_as_long_as_a_read() -> None:
    heap = Heap(cost_s=1.0)
    heap.starts("a")
    assert heap.starts("a", "a")[0] == (PID, 0, "a")
    for _ in range(5):
        assert heap.starts("a", "a") == []
        heap.clock.move(4.0)
    assert heap.looks == 2
    heap.clock.move(1_000.0)
    heap.starts("a", "a")
    assert heap.looks == 3


def test_looking_takes_at_most_a_twentieth_of_a_busy_process_s_time() -> None:
    heap = Heap(cost_s=0.5)
    for _ in range(5_000):
        heap.starts("a", "a")
        heap.clock.move(0.1)
    assert heap.looks * heap.cost_s <= heap.clock.now / 20 + 2 * heap.cost_s


def test_a_task_that_was_never_looked_at_is_looked_at_however_busy_the_process_is() -> None:
    heap = Heap(cost_s=1.0)
    for task in ("a", "b", "c"):
        heap.starts(task)
    assert heap.looks == 3
    heap.starts("a")
    assert heap.looks == 3


def test_names_that_come_in_without_end_do_not_make_every_start_a_read() -> None:
    heap = Heap(cost_s=1.0)
    for number in range(1_000):
        heap.starts(f"task-{number}")
    assert heap.looks == 200
