"""From records to verdicts: a made-up worker of two children, minute by minute."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from otel_celery_memory.captures.model import CapturedProcess
from otel_celery_memory.ipc.records import (
    NO_SPAN,
    FloorMeasured,
    MessagesHeld,
    ObjectsCounted,
    ProcessUp,
    RunRetained,
    TaskFinished,
    TypeGrown,
    WindowKind,
)
from otel_celery_memory.leaks.verdict import Kind, State, Verdict, Where
from otel_celery_memory.probes.procfs import ProcessReading
from otel_celery_memory.reporter.census import ProcessCensus
from otel_celery_memory.reporter.descendants import DescendantsSize
from otel_celery_memory.reporter.leak_watch import LeakWatch
from otel_celery_memory.reporter.limits import Usage
from otel_celery_memory.reporter.state.totals import TaskTotals
from otel_celery_memory.reporter.state.worker_state import WorkerState
from otel_celery_memory.telemetry.events import RankedSite

MAIN, CHILDREN = 10, (11, 12)
KIB, MIB = 1024, 1 << 20
Keeps = Callable[[float], int]
"""What a run keeps, by the time."""


@dataclass
class MadeUpEmitter:
    """What the watch reads, and what it emits."""

    tasks: TaskTotals = field(default_factory=TaskTotals)
    state: WorkerState = field(default_factory=WorkerState)
    readings: dict[str, ProcessReading] = field(default_factory=dict)
    sizes: list[DescendantsSize] = field(default_factory=list)
    usages: list[Usage] = field(default_factory=list)
    emitted: list[Verdict] = field(default_factory=list)
    leaks: tuple[Verdict, ...] = ()
    census_taken: Callable[[ProcessCensus], object] = lambda found: None

    def __post_init__(self) -> None:
        self.context = SimpleNamespace(
            processes=lambda: self.readings,
            descendants=lambda: self.sizes,
            limits_used=lambda: self.usages,
        )

    def bounded_task(self, task: str) -> str:
        return task

    def emit_leak(self, verdict: Verdict, now_ns: int) -> None:
        self.emitted.append(verdict)


class Worker:
    """Runs tasks on a clock of its own: each second ten runs in each child, of tasks by turns."""

    def __init__(self, keeps: dict[str, Keeps]) -> None:
        self.keeps = keeps
        self.now_s = 1_000_000.0
        self.emitter = MadeUpEmitter()
        self.sites: list[RankedSite] = []
        self.confirmed: list[str] = []
        emitter: Any = self.emitter
        self.watch = LeakWatch(
            emitter, lambda: self.sites, self.confirmed.append, wall_s=self.clock_s
        )
        self.levels = dict.fromkeys(CHILDREN, 20 * MIB)
        self.chance = random.Random(7)
        self.garbage_bytes_per_s = 0
        self.collects_fully = True
        self.shown: dict[str, int] = {}
        for slot, pid in enumerate((MAIN, *CHILDREN), -1):
            self.emitter.state.apply(ProcessUp(pid, self.ns, slot, 40 * MIB))

    def clock_s(self) -> float:
        return self.now_s

    @property
    def ns(self) -> int:
        return int(self.now_s * 1e9)

    def works(self, minutes: float) -> None:
        """Runs tasks for so long; each tenth run is sampled, once a minute there is a floor."""
        names = list(self.keeps)
        for second in range(int(minutes * 60)):
            self.now_s += 1
            for pid in CHILDREN:
                for number in range(10):
                    self.runs(pid, names[(second + number) % len(names)], sampled=number == 0)
                if second % 60 == 30 and self.collects_fully:
                    self.watch.apply(
                        FloorMeasured(pid, self.ns, 0, 0, self.levels[pid], 0, 0, 0, 0, 0, 0)
                    )
            self.watch.tick()

    def garbage(self) -> int:
        """What waits for a full collection: there is one each half minute."""
        return int((self.now_s - 0.5) % 30 * self.garbage_bytes_per_s)

    def runs(self, pid: int, task: str, *, sampled: bool) -> None:
        kept = self.keeps[task](self.now_s - 1_000_000)
        self.levels[pid] += kept
        record = TaskFinished(
            *(pid, self.ns, self.ns, 0, 0, 5 * MIB, None, None, None, 1, 0, NO_SPAN),
            *("id", task, "SUCCESS", ""),
        )
        self.emitter.tasks.finished(task, record)
        self.watch.apply(record)
        if sampled:
            level = self.levels[pid] + self.chance.randint(0, 500) + self.garbage()
            shown = self.shown.get(task, kept)
            retained = RunRetained(pid, self.ns, 0, 1, shown, shown // 500, 0, 0, 0, level, task)
            self.emitter.tasks.left_behind(task, retained)
            self.watch.apply(retained)

    def told(self) -> list[tuple[str, str]]:
        """State and task of what was emitted."""
        return [(verdict.state.value, verdict.task) for verdict in self.emitter.emitted]


def never(_: float) -> int:
    return 0


def always(kept: int) -> Keeps:
    return lambda _: kept


def site(task: str, name: str, size_bytes: int, where: str = "task") -> RankedSite:
    """A line that leaves so much behind in a run."""
    return RankedSite(
        *(1, name, f"/app/{name}", 4, "remember", "", "", where, task, WindowKind.COMPLETE),
        *(size_bytes, 1, 0, 20, 1_000),
    )


def test_who_leaks_is_suspected_within_minutes_and_nobody_else() -> None:
    worker = Worker({"leaks": always(10 * KIB), "healthy": never})
    worker.sites = [site("leaks", "app.py:4", 10_000)]
    worker.works(4)
    assert worker.told()[0] == ("suspected", "leaks")
    assert {task for _, task in worker.told()} == {"leaks"}
    (verdict,) = worker.emitter.leaks
    assert (verdict.kind, verdict.where) == (Kind.PYTHON, Where.TASK)
    assert verdict.rate is not None and verdict.rate.middle == pytest.approx(10 * KIB, rel=0.01)
    assert verdict.rate_per_s == pytest.approx(100 * KIB, rel=0.2)
    assert verdict.place is not None and verdict.place.name == "app.py:4"
    assert verdict.place.share == pytest.approx(10_000 / (10 * KIB), rel=0.01)


def test_it_leaks_once_no_cache_explains_it() -> None:
    worker = Worker({"leaks": always(100 * KIB), "healthy": never})
    worker.works(12)
    assert worker.told()[-1] == ("leaking", "leaks")


def test_a_leak_that_is_mended_has_ended() -> None:
    worker = Worker({"leaks": lambda at_s: 10 * KIB if at_s < 300 else 0, "healthy": never})
    worker.works(16)
    assert worker.told()[0] == ("suspected", "leaks")
    assert worker.told()[-1] == ("ended", "leaks")
    assert worker.emitter.leaks[0].state == State.ENDED


def test_a_leak_behind_much_garbage_is_seen_by_full_collections() -> None:
    worker = Worker({"leaks": always(5 * KIB), "healthy": never})
    worker.garbage_bytes_per_s = 3 * MIB
    worker.works(14)
    assert worker.told()[0] == ("suspected", "leaks")
    assert {task for _, task in worker.told()} == {"leaks"}


def test_where_samples_say_who_keeps_it_the_lowest_levels_are_enough() -> None:
    worker = Worker({"leaks": always(5 * KIB), "healthy": never})
    worker.garbage_bytes_per_s = 3 * MIB
    worker.works(5)
    assert worker.told() == [("suspected", "leaks")]
    assert worker.emitter.leaks[0].reasons == (
        "samples of its runs and the lowest levels of the heaps agree; it may still be a cache",
    )


def test_what_samples_show_and_the_heaps_do_not_keep_is_no_leak() -> None:
    worker = Worker({"makes": never, "healthy": never})
    worker.garbage_bytes_per_s = 1 * MIB
    worker.shown = {"makes": 5 * KIB}
    worker.works(15)
    assert worker.told() == []


def test_garbage_alone_is_no_leak() -> None:
    worker = Worker({"first": never, "second": never})
    worker.garbage_bytes_per_s = 3 * MIB
    worker.works(15)
    assert worker.told() == []


def test_healthy_tasks_are_never_suspected() -> None:
    worker = Worker({"first": never, "second": never})
    worker.works(20)
    assert worker.emitter.emitted == []


def test_while_a_worker_warms_up_nobody_is_suspected() -> None:
    worker = Worker({"fills": lambda at_s: 50 * KIB if at_s < 50 else 0})
    worker.emitter.tasks = TaskTotals(warm_up_s=60)
    worker.works(10)
    assert worker.emitter.emitted == []


def test_a_suspicion_orders_one_census_and_tells_what_it_found() -> None:
    worker = Worker({"leaks": always(10 * KIB), "healthy": never})
    worker.works(4)
    assert worker.confirmed == ["leaks"]
    grown = (
        TypeGrown(11, 1, 100, 900, 300, 9, 9, "dict", "shop.feeds._seen"),
        TypeGrown(11, 1, 100, 500, 5, 5, 5, "Request", "celery.app"),
        TypeGrown(11, 1, 100, 9_000, 6_200, 9, 9, "tuple", "a running function, or native code"),
    )
    counted = ObjectsCounted(11, worker.ns, 1, 100, 1_000, 305, 1, 0, "")
    worker.emitter.census_taken(
        ProcessCensus(CapturedProcess("0", 11, None), "leaks", grown, counted)
    )
    worker.works(2)
    (verdict,) = worker.emitter.leaks
    assert verdict.holder is not None
    assert (verdict.holder.chain, verdict.holder.types) == ("shop.feeds._seen", (("dict", 3.0),))
    worker.works(20)
    assert worker.confirmed == ["leaks"]


@pytest.mark.parametrize(
    ("grown", "told"),
    [
        (TypeGrown(11, 1, 100, 900, 100, 9, 9, "bytearray", "shop.feeds._seen"), "leaking"),
        (TypeGrown(11, 1, 100, 900, 100, 9, 3, "bytearray", "shop.feeds._seen"), "suspected"),
    ],
)
def test_what_names_hold_leaks_before_a_full_collection_has_said_so(
    grown: TypeGrown, told: str
) -> None:
    worker = Worker({"leaks": always(100 * KIB), "healthy": never})
    worker.collects_fully = False
    worker.works(5)
    counted = ObjectsCounted(11, worker.ns, 1, 100, 1_000, 305, 1, 0, "")
    worker.emitter.census_taken(
        ProcessCensus(CapturedProcess("0", 11, None), "leaks", (grown,), counted)
    )
    worker.works(10)
    assert worker.told()[-1] == (told, "leaks")


def test_what_no_census_answers_is_asked_again_soon_and_then_every_ten_minutes() -> None:
    worker = Worker({"leaks": always(10 * KIB), "healthy": never})
    asked = []
    for _ in range(45):
        worker.works(1)
        asked.append(len(worker.confirmed))
    at_minutes = [asked.index(count) for count in range(1, asked[-1] + 1)]
    between = [later - at for at, later in pairwise(at_minutes)]
    assert between[:4] == [pytest.approx(each, abs=1) for each in (2.5, 5, 10, 10)]


def test_the_nearest_limit_is_forecast() -> None:
    worker = Worker({"leaks": always(10 * KIB)})
    worker.emitter.usages = [
        Usage("cgroup", None, 100 * MIB, 100 * MIB + 720 * MIB),
        Usage("host", None, 0, 1 << 40),
    ]
    worker.works(5)
    (verdict,) = worker.emitter.leaks
    assert verdict.forecast is not None
    assert (verdict.forecast.slot, verdict.forecast.limit) == ("main", "cgroup")
    # 200 KiB a second.
    assert verdict.forecast.seconds.middle == pytest.approx(3_686, rel=0.1)
    assert verdict.max_tasks_per_child is not None
    assert verdict.max_tasks_per_child == pytest.approx(36_000, rel=0.3)


def reading(**levels: Any) -> ProcessReading:
    """A process as the kernel shows it."""
    return ProcessReading(rss_bytes=50 * MIB, **levels)


def processes(threads: Iterable[int]) -> dict[str, ProcessReading]:
    """The main process and its children, with so many threads each."""
    return {
        name: reading(threads=count)
        for name, count in zip(("main", "0", "1"), threads, strict=True)
    }


def test_messages_that_the_main_process_holds_are_told() -> None:
    worker = Worker({"healthy": never})
    for minute in range(6):
        for second in range(12):
            held = (minute * 12 + second) * 100
            worker.emitter.state.apply(
                MessagesHeld(MAIN, worker.ns, 0, 0, held, 0, None, None, None)
            )
            worker.emitter.readings = processes((1, 1, 1))
            worker.works(5 / 60)
    (verdict,) = worker.emitter.leaks
    assert (verdict.kind, verdict.where) == (Kind.MESSAGES, Where.MAIN)


def test_after_a_fork_nothing_is_left_of_the_parents() -> None:
    worker = Worker({"leaks": always(10 * KIB)})
    worker.works(4)
    worker.watch.clear()
    worker.emitter.emitted.clear()
    worker.keeps = {"leaks": never}
    worker.works(4)
    assert worker.emitter.emitted == []


def test_a_clock_that_is_set_back_stops_nothing() -> None:
    worker = Worker({"leaks": always(10 * KIB)})
    worker.works(1)
    worker.now_s -= 7_200
    worker.works(4)
    assert worker.told()[0][0] == "suspected"


def test_a_reporter_that_is_started_again_goes_on_with_the_evidence() -> None:
    worker = Worker({"leaks": always(10 * KIB), "healthy": never})
    worker.works(4)
    kept = json.loads(json.dumps(worker.watch.state()))
    assert len(json.dumps(kept)) < 60_000
    emitter: Any = worker.emitter
    worker.emitter.emitted.clear()
    worker.watch = LeakWatch(emitter, lambda: [], worker.confirmed.append, wall_s=worker.clock_s)
    worker.watch.restore(kept)
    worker.works(1)
    assert worker.told() == [("suspected", "leaks")]


@pytest.mark.parametrize(
    "kept", [{}, {"growth": 1}, {"growth": {"heap": {}}, "tasks": {}}, {"growth": {"other?": {}}}]
)
def test_evidence_that_cannot_be_read_is_left(kept: dict[str, Any]) -> None:
    worker = Worker({"leaks": always(10 * KIB)})
    worker.watch.restore(kept)
    worker.works(4)
    assert worker.told()[0] == ("suspected", "leaks")
