"""The inspector reads orders, completes captures and writes the view."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import HeapSampled, MessagesHeld, ProcessUp, WindowKind
from otel_celery_memory.leaks.verdict import Forecast, Interval, State, Verdict
from otel_celery_memory.leaks.words import sentences
from otel_celery_memory.probes.procfs import ProcessReading
from otel_celery_memory.reporter.capture_assembly import CaptureAssembly, TakenCapture
from otel_celery_memory.reporter.census import Censuses
from otel_celery_memory.reporter.descendants import DescendantsSize
from otel_celery_memory.reporter.losses import Losses
from otel_celery_memory.reporter.sites import SiteTotals
from otel_celery_memory.reporter.state.totals import TaskTotals
from otel_celery_memory.reporter.state.worker_state import WorkerState
from otel_celery_memory.reporter.symbolizer import CodePlace
from otel_celery_memory.reporter.view import VIEW_INTERVAL_S, Inspector
from tests.unit.examples import finished, left_behind, site, started, window
from tests.unit.fakes import FakeClock
from tests.unit.leaks.examples import VERDICT


def describe(path: str, line: int) -> CodePlace:
    return CodePlace(f"feeds.py:{line}", "load")


class Context:
    """What an emitter reads beside records."""

    def __init__(self) -> None:
        self.of_descendants: list[DescendantsSize] = []

    def processes(self) -> dict[str, ProcessReading]:
        return {
            "0": ProcessReading(
                5_100,
                unique_bytes=4_000,
                unique_at_start_bytes=1_000,
                copied_bytes=2_500,
                open_files=12,
            )
        }

    def descendants(self) -> list[DescendantsSize]:
        return self.of_descendants


class RecordingEmitter:
    """The parts of an emitter that the inspector uses."""

    def __init__(self, clock: FakeClock) -> None:
        self.state = WorkerState()
        self.sites = SiteTotals(describe, 10)
        self.captures = CaptureAssembly("w", 1, describe, None, clock)
        self.censuses = Censuses(clock)
        self.tasks = TaskTotals()
        self.emitted: list[TakenCapture] = []
        self.off: list[tuple[str, str]] = []
        self.losses = Losses()
        self.context = Context()
        self.leaks: tuple[Verdict, ...] = ()
        self.leaks_decided = False
        self.tree_peaks: dict[str, int] = {}

    def emit_capture(self, taken: TakenCapture) -> None:
        self.emitted.append(taken)

    def runs_measured(self) -> int:
        return 7

    def runs_aborted(self) -> int:
        return 4

    def switched_off(self) -> list[tuple[str, str]]:
        return self.off


class Bench:
    """A inspector on a clock, with what it writes."""

    def __init__(self) -> None:
        self.clock = FakeClock(1_000.0)
        self.page = ControlPage(clock_s=self.clock)
        self.emitter = RecordingEmitter(self.clock)
        self.tracing_s = (400.0, 4.93824)
        self.written: list[dict[str, Any]] = []
        self.room_bytes = 10**6
        emitter: Any = self.emitter
        self.inspector = Inspector(
            emitter, self.page, "budget", lambda: self.tracing_s, self._write, self.clock
        )

    def _write(self, view: dict[str, Any]) -> bool:
        if len(json.dumps(view)) > self.room_bytes:
            return False
        self.written.append(view)
        return True

    def worker(self) -> None:
        """A main process with a child that runs a task."""
        for pid, slot in ((100, -1), (101, 0)):
            self.emitter.state.apply(ProcessUp(pid, 0, slot, pid * 1_000))
        self.emitter.state.apply(started(101, "1", "app.grow", rss_bytes=5_000))


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.page.close()


def test_the_view_of_a_worker_is_this_and_fits_on_the_page(bench: Bench) -> None:
    bench.worker()
    bench.emitter.off = [("0", "heap"), ("reporter", "limits")]
    bench.emitter.context.of_descendants = [
        DescendantsSize("0", "app.grow", 3, 700, None, 1),
        DescendantsSize("1", None, 0, 0, 0),
    ]
    bench.emitter.state.apply(MessagesHeld(100, 1, 2, 3, 4, 5, 200, None, 400))
    run = finished(traced_delta_bytes=90)._replace(rss_delta_bytes=400, rss_peak_bytes=900)
    bench.emitter.tasks.finished("app.grow", run)
    bench.emitter.tree_peaks["app.grow"] = 1_500
    bench.emitter.state.apply(HeapSampled(101, 1, 10, 20, 30))
    bench.emitter.tasks.not_traced("app.grow", "slow")
    for size in (100, 101, 100) * 4:
        bench.emitter.tasks.left_behind("app.grow", left_behind(size))
    bench.emitter.sites.window(window(101, "app.grow", kind=WindowKind.PARTIAL))
    bench.emitter.sites.site(site(70, 41, pid=101, task="app.grow", kind=WindowKind.PARTIAL))
    bench.inspector.tick()
    assert bench.written == [
        {
            "verdicts": [],
            "verdicts_decided": False,
            "tracing": {
                "mode": "budget",
                "task_seconds": 400.0,
                "spent_seconds": 4.93824,
                "overhead": 0.01235,
                "aborted": 4,
            },
            "measured": 7,
            "warm_up_seconds": 0,
            "processes": [
                {
                    **{"slot": "main", "pid": 100, "rss": 100_000, "unique": None},
                    **{"unique_at_start": None, "copied": None, "task": None},
                    **{"open_files": None, "malloc_free": None},
                },
                {
                    **{"slot": "0", "pid": 101, "rss": 5_000, "unique": 4_000},
                    **{"unique_at_start": 1_000, "copied": 2_500, "task": "app.grow"},
                    **{"open_files": 12, "malloc_free": 30},
                },
            ],
            "messages": {
                **{"active": 2, "active_bytes": 200, "reserved": 3, "reserved_bytes": None},
                **{"scheduled": 4, "scheduled_bytes": 400, "revoked": 5},
            },
            "descendants": [
                {
                    **{"slot": "0", "task": "app.grow", "processes": 3, "left": 1},
                    **{"rss": 700, "unique": None},
                }
            ],
            "tasks": [
                {
                    "name": "app.grow",
                    "runs": 1,
                    "retained_per_run": 100,
                    "retained_at_most": 190,
                    "sampled_runs": 12,
                    "peak": 900,
                    "tree_peak": 1_500,
                    "largest": 400,
                    "traced_runs": 1,
                    "traced_per_run": 90,
                    "not_traced": "slow",
                }
            ],
            "sites": [
                {
                    "name": "feeds.py:41",
                    "function": "load",
                    "via": None,
                    "where": None,
                    "task": "app.grow",
                    "window": "partial",
                    "size": 70,
                    "blocks": 1,
                    "runs": 1,
                    "rate": None,
                    "age_seconds": 0,
                }
            ],
            "losses": [],
            "captures": [],
            "objects": [],
            "switched_off": [
                {"slot": "0", "part": "heap"},
                {"slot": "reporter", "part": "limits"},
            ],
        }
    ]
    assert json.loads(json.dumps(bench.written[0])) == bench.written[0]


def test_a_verdict_is_shown_in_words_and_in_numbers(bench: Bench) -> None:
    bench.emitter.leaks = (replace(VERDICT, since_s=1_000.5),)
    bench.emitter.leaks_decided = True
    view = bench.inspector.view("budget")
    (row,) = view["verdicts"]
    assert view["verdicts_decided"]
    assert row.pop("text") == sentences(bench.emitter.leaks[0])
    assert row == {
        "state": "leaking",
        "kind": "python",
        "where": "task",
        "task": "shop.tasks.import_feed",
        "rate": 10_445,
        "site": "shop/feeds.py:41",
        "holder": "shop.feeds._seen",
        "exhaustion_seconds": 25_200,
        "since": 1_000.5,
    }


def test_a_verdict_of_which_little_is_known_is_json_too(bench: Bench) -> None:
    never = Forecast("0", "host", 1, Interval(math.inf, 1, math.inf))
    little = replace(VERDICT, task="", rate=None, place=None, holder=None, forecast=never)
    bench.emitter.leaks = (little, replace(VERDICT, state=State.ENDED))
    row, ended = bench.inspector.view("budget")["verdicts"]
    assert ended["exhaustion_seconds"] is None
    none = ("task", "rate", "site", "holder", "exhaustion_seconds")
    assert [row[name] for name in none] == [None] * 5
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_what_leaks_comes_first_and_of_that_what_leaks_most(bench: Bench) -> None:
    bench.emitter.leaks = tuple(
        replace(VERDICT, task=f"{state.value} {rate}", state=state, rate_per_s=rate)
        for state in (State.ENDED, State.SUSPECTED, State.LEAKING)
        for rate in (1, 3, 2)
    )
    rows = bench.inspector.view("budget")["verdicts"]
    assert [row["task"] for row in rows] == [
        f"{state} {rate}" for state in ("leaking", "suspected", "ended") for rate in (3, 2, 1)
    ]


def test_the_verdicts_shown_are_bounded(bench: Bench) -> None:
    bench.emitter.leaks = tuple(replace(VERDICT, task=f"t{number}") for number in range(50))
    assert len(bench.inspector.view("budget")["verdicts"]) == 20


def test_what_a_nightly_job_has_left_is_still_shown_in_the_morning(bench: Bench) -> None:
    def find(task: str, line: int) -> None:
        bench.emitter.sites.finished(finished(101, task=task))
        bench.emitter.sites.window(window(101, task, runs=40))
        bench.emitter.sites.site(site(70_000, line, pid=101, task=task, blocks=40))

    def shown() -> list[tuple[str, str, int]]:
        rows = bench.inspector.view("budget")["sites"]
        return [(row["task"], row["name"], row["age_seconds"]) for row in rows]

    find("app.nightly", 41)
    assert shown() == [("app.nightly", "feeds.py:41", 0)]
    bench.clock.move(8 * 3_600)
    bench.emitter.sites.reset()
    assert shown() == [("app.nightly", "feeds.py:41", 8 * 3_600)]
    find("app.other", 43)
    find("app.nightly", 42)
    assert sorted(shown()) == [("app.nightly", "feeds.py:42", 0), ("app.other", "feeds.py:43", 0)]
    bench.emitter.sites.reset()
    bench.clock.move(60)
    for _ in range(10):
        bench.emitter.tasks.left_behind("app.other", left_behind(0))
    assert shown() == [("app.nightly", "feeds.py:42", 60)]
    bench.clock.move(24 * 3_600)
    assert shown() == []


def test_rows_of_sites_are_distinct_whatever_the_depth_of_tracing(bench: Bench) -> None:
    bench.emitter.sites.window(window(101, "app.grow", kind=WindowKind.PARTIAL))
    for number in range(20):
        stack = "\n".join(f"caller.py:{number + depth}" for depth in range(25))
        bench.emitter.sites.site(
            site(7, 41, pid=101, task="app.grow", kind=WindowKind.PARTIAL, stack=stack)
        )
    (row,) = bench.inspector.view("budget")["sites"]
    assert (row["name"], row["size"], row["blocks"]) == ("feeds.py:41", 140, 20)


def test_a_view_that_finds_no_room_is_written_with_less_in_it(bench: Bench) -> None:
    for number in range(12):
        bench.emitter.tasks.finished(f"{number:02}" + "t" * 200, finished())
    bench.room_bytes = 2_850
    bench.inspector.tick()
    assert (len(bench.written[0]["tasks"]), bench.written[0]["left_out"]) == (6, {"tasks": 6})


def test_a_worker_without_data_has_a_view(bench: Bench) -> None:
    bench.tracing_s = (0.0, 0.0)
    assert bench.inspector.view("off") == {
        "verdicts": [],
        "verdicts_decided": False,
        "tracing": {
            "mode": "off",
            "task_seconds": 0.0,
            "spent_seconds": 0.0,
            "overhead": None,
            "aborted": 4,
        },
        "measured": 7,
        "warm_up_seconds": 0,
        "processes": [],
        "messages": None,
        "descendants": [],
        "tasks": [],
        "sites": [],
        "losses": [],
        "captures": [],
        "objects": [],
        "switched_off": [],
    }


def test_a_view_is_written_every_few_seconds_and_not_at_every_tick(bench: Bench) -> None:
    for _ in range(50):
        bench.inspector.tick()
        bench.clock.move(1.0)
    assert len(bench.written) == 50 / VIEW_INTERVAL_S


def test_processes_that_ended_or_have_no_slot_are_not_in_it(bench: Bench) -> None:
    bench.worker()
    bench.emitter.state.gone(101, 5)
    bench.emitter.state.apply(HeapSampled(999, 0, 1, None, None))
    assert [p["pid"] for p in bench.inspector.view("budget")["processes"]] == [100]


def test_the_mode_is_the_one_that_was_ordered(bench: Bench) -> None:
    bench.page.set_commands(Commands("always"))
    bench.inspector.tick()
    assert bench.written[0]["tracing"]["mode"] == "always"


def test_a_capture_is_emitted_when_the_children_have_sent_it(bench: Bench) -> None:
    bench.worker()
    bench.page.set_commands(Commands("", 3, 1, False, 1_100.0, 1.0))
    bench.inspector.tick()
    assert bench.written[-1]["captures"] == [{"number": 3, "state": "running"}]
    sender = bench.emitter.state.processes[101].captured()
    bench.emitter.captures.window(window(101, "a", capture=3, sites=0), sender)
    bench.inspector.tick()
    assert [(t.number, [p.pid for p in t.capture.processes]) for t in bench.emitter.emitted] == [
        (3, [101])
    ]
    # Who waits for it need not wait for the next view.
    assert bench.written[-1]["captures"][0]["state"] == "complete"


def test_without_children_the_main_process_is_the_one_that_is_captured(bench: Bench) -> None:
    bench.emitter.state.apply(ProcessUp(100, 0, -1, 1))
    bench.page.set_commands(Commands("", 3, 1, False, 1_100.0, 1.0))
    bench.inspector.tick()
    sender = bench.emitter.state.processes[100].captured()
    bench.emitter.captures.window(window(100, "a", capture=3, sites=0), sender)
    bench.inspector.tick()
    assert [p.slot for p in bench.emitter.emitted[0].capture.processes] == ["main"]


def test_when_the_worker_ends_a_capture_is_emitted_as_far_as_it_is(bench: Bench) -> None:
    bench.worker()
    bench.page.set_commands(Commands("", 3, 10, False, 1_100.0, 1.0))
    bench.inspector.finish()
    bench.inspector.finish()
    assert [taken.number for taken in bench.emitter.emitted] == [3]


def test_very_many_of_everything_still_fit_on_the_page(bench: Bench) -> None:
    from otel_celery_memory.ipc.status_page import StatusPage

    page = StatusPage()
    for number in range(1_000):
        bench.emitter.state.apply(ProcessUp(number + 1, 0, number, 10**12))
        bench.emitter.tasks.finished(f"{number}" + "t" * 400, finished())
    for number in range(500):
        bench.emitter.sites.window(window(1, f"{number}" + "t" * 400, kind=WindowKind.PARTIAL))
        bench.emitter.sites.site(
            site(10**9, number, task=f"{number}" + "t" * 400, kind=WindowKind.PARTIAL)
        )
    view = bench.inspector.view("budget")
    assert (len(view["processes"]), len(view["tasks"]), len(view["sites"])) == (200, 50, 10)
    assert page.write(view)
    page.close()
