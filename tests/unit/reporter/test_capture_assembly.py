"""A capture: gathered from all processes, complete when each has sent what it should."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from otel_celery_memory.captures.format import dump_capture, load_capture
from otel_celery_memory.captures.model import Capture, CapturedProcess, CapturedSite, CaptureError
from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.ipc.records import WindowKind
from otel_celery_memory.reporter.capture_assembly import EMPTY_SLOT_S, GRACE_S, CaptureAssembly
from otel_celery_memory.reporter.symbolizer import CodePlace
from tests.unit.examples import site, window
from tests.unit.fakes import FakeClock

ORDERS = Commands("", 5, 2, False, 1_120.0, 1.0)
FIRST, SECOND = CapturedProcess("0", 1, 1_000), CapturedProcess("1", 2, None)
PATH = "/srv/app/feeds.py"


def describe(path: str, line: int) -> CodePlace:
    return CodePlace(f"feeds.py:{line}", "load")


class Gathering:
    """Captures of a worker with two processes, fed window by window."""

    def __init__(self, save: Callable[[Capture], object] | None = None) -> None:
        self.clock = FakeClock(1_000.0)
        self.captures = CaptureAssembly("celery@box", 3, describe, save, self.clock)

    def send(self, pid: int, blocks: int = 1, task: str = "a", **changes: Any) -> None:
        """A window with one site."""
        fields = {"kind": WindowKind.COMPLETE, "capture": 5, **changes}
        self.window(pid, task, **fields)
        self.captures.site(site(blocks * 100, 7, pid=pid, task=task, blocks=blocks, **fields))

    def window(self, pid: int, task: str, **fields: Any) -> None:
        """A window of a process that is one of the two, or was in the place of the second."""
        sender = FIRST if pid == 1 else replace(SECOND, pid=pid)
        self.captures.window(window(pid, task, **fields), sender)

    def complete(self, *processes: CapturedProcess, all_now: bool = False) -> Capture | None:
        taken = self.captures.complete(processes or (FIRST, SECOND), all_now=all_now)
        return taken.capture if taken else None

    def states(self) -> list[tuple[int, str]]:
        return [(found["number"], found["state"]) for found in self.captures.view()]


@pytest.fixture
def gathering() -> Gathering:
    made = Gathering()
    made.captures.begin(ORDERS, "budget")
    return made


def test_a_capture_has_everything_that_was_sent(gathering: Gathering) -> None:
    gathering.send(1, 3)
    gathering.clock.move(4.5)
    gathering.send(1, 1, task="b")
    for _ in range(2):
        gathering.window(2, "a", capture=5, sites=1, other_bytes=50)
        gathering.captures.site(site(10, 9, pid=2, task="a", capture=5, stack=f"x.py:1\n{PATH}:9"))
    found = gathering.complete()
    assert found is not None
    assert found == Capture(
        kind="runs",
        worker="celery@box",
        reason="remote control",
        taken_ns=found.taken_ns,
        duration_s=4.5,
        frames=3,
        tracing="budget",
        processes=(FIRST, SECOND),
        runs={"a": 3, "b": 1},
        sites=(
            CapturedSite("a", PATH, 7, "load", "feeds.py:7", (), 300, 3),
            CapturedSite("b", PATH, 7, "load", "feeds.py:7", (), 100, 1),
            CapturedSite("a", PATH, 9, "load", "feeds.py:9", (("x.py", 1), (PATH, 9)), 20, 2),
        ),
        other_bytes=100,
        other_blocks=0,
    )
    assert abs(found.taken_ns - time.time_ns()) < 60e9
    assert load_capture(dump_capture(found)) == found


def test_it_is_complete_when_each_process_has_sent_its_runs(gathering: Gathering) -> None:
    for pid in (1, 1, 1, 2):
        gathering.send(pid)
        assert gathering.complete() is None
    gathering.send(2)
    assert gathering.complete() is not None
    assert gathering.complete() is None


def test_a_slot_that_stays_empty_is_not_waited_for(gathering: Gathering) -> None:
    assert gathering.complete() is None
    gathering.send(1)
    gathering.send(1)
    gathering.clock.move(EMPTY_SLOT_S)
    assert gathering.complete(FIRST) is None
    gathering.clock.move(0.1)
    found = gathering.complete(FIRST)
    assert found is not None
    assert found.processes == (FIRST,)


def test_a_successor_goes_on_with_the_capture_of_its_slot(
    gathering: Gathering,
) -> None:
    gathering.captures.begin(replace(ORDERS, capture=6, runs=4), "budget")
    found = None
    for pid in (2, 3, 4, 5):
        assert gathering.complete() is None
        for sender in (1, pid):
            gathering.send(sender, capture=6)
    found = gathering.complete(FIRST, replace(SECOND, pid=6))
    assert found is not None
    assert (found.runs, found.processes) == ({"a": 8}, (FIRST, replace(SECOND, pid=5)))


def test_between_two_children_their_slot_is_waited_for_and_not_the_main_process(
    gathering: Gathering,
) -> None:
    main = CapturedProcess("main", 9, 5_000)
    assert gathering.complete(main) is None
    for pid in (1, 1, 2):
        gathering.send(pid)
    assert gathering.complete(FIRST) is None
    assert gathering.complete(main) is None
    gathering.send(3)
    assert gathering.complete(main) is not None


def test_a_capture_waits_while_no_process_is_known(gathering: Gathering) -> None:
    assert gathering.captures.complete([]) is None
    gathering.clock.move(500.0)
    assert gathering.captures.complete([]) is not None


def test_when_its_time_is_over_what_there_is_is_the_capture(gathering: Gathering) -> None:
    gathering.send(1)
    gathering.clock.move(120.0 + GRACE_S - 0.1)
    assert gathering.complete() is None
    gathering.clock.move(0.2)
    found = gathering.complete()
    assert found is not None
    assert (found.processes, len(found.sites)) == ((FIRST,), 1)


def test_a_capture_of_some_seconds_lasts_so_long(gathering: Gathering) -> None:
    gathering.captures.begin(replace(ORDERS, capture=6, runs=0, until_s=1_030.0), "budget")
    for pid in (1, 2):
        gathering.send(pid, capture=6)
    assert gathering.complete() is None
    gathering.clock.move(33.0)
    assert gathering.complete() is not None


def test_the_sites_of_the_last_window_are_waited_for_a_little(gathering: Gathering) -> None:
    for pid in (1, 1, 2):
        gathering.send(pid)
    gathering.window(2, "a", capture=5, sites=2)
    gathering.captures.site(site(1, 8, pid=2, task="a", capture=5))
    assert gathering.complete() is None
    gathering.captures.site(site(1, 9, pid=2, task="a", capture=5))
    found = gathering.complete()
    assert found is not None
    assert len(found.sites) == 3


def test_sites_that_were_lost_are_not_waited_for_for_ever(gathering: Gathering) -> None:
    for pid in (1, 1, 2, 2):
        gathering.window(pid, "a", capture=5, sites=3)
    assert gathering.complete() is None
    gathering.clock.move(GRACE_S)
    assert gathering.complete() is not None


def test_when_the_worker_ends_what_there_is_is_the_capture(gathering: Gathering) -> None:
    gathering.send(1)
    assert gathering.complete(all_now=True) is not None


def test_whole_runs_go_before_slices_and_the_whole_heap_before_both(gathering: Gathering) -> None:
    gathering.send(1, 50, kind=WindowKind.PARTIAL)
    gathering.send(1, 2)
    found = gathering.complete(all_now=True)
    assert found is not None
    assert (found.kind, [s.blocks for s in found.sites]) == ("runs", [2])
    gathering.captures.begin(replace(ORDERS, capture=6), "always")
    for pid in (1, 2):
        gathering.send(pid, 9, task="", kind=WindowKind.HEAP, capture=6)
    found = gathering.complete()
    assert found is not None
    assert (found.kind, found.runs, found.tracing) == ("heap", {}, "always")
    assert [s.blocks for s in found.sites] == [18]


def test_what_belongs_to_no_capture_or_an_older_one_is_not_in_it(gathering: Gathering) -> None:
    for capture in (0, 4, 6):
        gathering.send(1, capture=capture)
    found = gathering.complete(all_now=True)
    assert found is not None
    assert (found.sites, found.processes, found.kind) == ((), (), "runs")


def test_the_same_order_read_again_is_no_new_capture(gathering: Gathering) -> None:
    gathering.send(1)
    gathering.captures.begin(ORDERS, "budget")
    gathering.send(1)
    assert gathering.states() == [(5, "running")]
    gathering.complete(all_now=True)
    gathering.captures.begin(ORDERS, "budget")
    gathering.captures.begin(Commands(), "budget")
    assert gathering.states() == [(5, "complete")]


def test_a_completed_capture_has_its_file_or_the_error() -> None:
    def full(_: Capture) -> object:
        raise CaptureError("the disk is full")

    written, failed = Gathering(lambda _: "/var/captures/x.gz"), Gathering(full)
    for made in (written, failed):
        made.captures.begin(replace(ORDERS, by_signal=True), "budget")
        made.send(1, 4)
    taken = written.captures.complete([FIRST], all_now=True)
    assert taken is not None
    assert (taken.file, taken.error, taken.capture.reason) == ("/var/captures/x.gz", None, "SIGURG")
    taken = failed.captures.complete([FIRST], all_now=True)
    assert taken is not None
    assert (taken.file, taken.error) == (None, "the disk is full")
    assert failed.captures.view() == [
        {
            "number": 5,
            "state": "failed",
            "kind": "runs",
            "sites": 1,
            "runs": 1,
            "file": None,
            "error": "the disk is full",
        }
    ]


def test_the_last_five_are_kept_newest_first(gathering: Gathering) -> None:
    for number in range(6, 14):
        gathering.captures.begin(replace(ORDERS, capture=number), "budget")
        gathering.complete(all_now=True)
    gathering.captures.begin(replace(ORDERS, capture=14), "budget")
    assert gathering.states() == [
        (14, "running"),
        *((number, "complete") for number in range(13, 8, -1)),
    ]


def test_sites_are_bounded_and_the_rest_added_up(gathering: Gathering) -> None:
    gathering.window(1, "a", capture=5, sites=20_100)
    for line in range(20_100):
        gathering.captures.site(site(2, line, pid=1, task="a", capture=5, blocks=1))
    found = gathering.complete(all_now=True)
    assert found is not None
    assert (len(found.sites), found.other_bytes, found.other_blocks) == (20_000, 200, 100)


@pytest.mark.parametrize(
    ("stack", "frames"),
    [
        ("a.py:1\nb.py:2", (("a.py", 1), ("b.py", 2))),
        ("no number", (("", 0),)),
        ("a.py:²", (("a.py", 0),)),
        ("a:b.py:-3\n:7", (("a:b.py", 0), ("", 7))),
        ("a\x0bb.py:1\n\n", (("a\x0bb.py", 1),)),
    ],
)
def test_a_stack_that_is_damaged_is_no_error(
    gathering: Gathering, stack: str, frames: tuple[tuple[str, int], ...]
) -> None:
    gathering.window(1, "a", capture=5)
    gathering.captures.site(site(1, 1, pid=1, task="a", capture=5, stack=stack))
    found = gathering.complete(all_now=True)
    assert found is not None
    assert found.sites[0].stack == frames
