"""What must be seen beside who leaks is found, or said to be missing; all of it made up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from demo.receiver import Event, Point
from otel_celery_memory import conventions as c
from tests.truth.case import ANY
from tests.truth.conclusions import Seen
from tests.truth.findings import (
    FilesShown,
    Finding,
    HeldBy,
    HoldsMessages,
    KeptByRuns,
    KeptFree,
    KillsAgain,
    LeavesGarbage,
    LeavesProcesses,
    Losses,
    Lost,
    PeakOf,
)

MIB = 1 << 20
S = 10**9
INSPECTED = """\
tracing budget: 0.09 s of 1.7 s of task time in ten minutes, 0 runs aborted

process  pid  RSS       unique    malloc free  files  task
main     1    60.7 MiB  50.0 MiB  -            20     -
0        2    64.0 MiB  10.0 MiB  9.0 MiB      1,024  -

messages in main: 2 run (bodies: 10 B), 3,950 wait for their time (bodies: 80.0 MiB)

started by  process  processes  RSS        unique     left behind
shop.shoot  0        2          140.0 MiB  130.0 MiB  2

task        runs  retained/run  peak       with processes  largest
shop.shoot  40    0 B           1.0 MiB    75.0 MiB        0 B
shop.dump   4     0 B           210.0 MiB  -               0 B

lost  seen     how                RSS        run took   times  task       id
0     now      killed, signal 9   310.0 MiB  250.0 MiB  12     shop.pull  id-1
1     now      exited, code 0     60.0 MiB   -          3      shop.quit  id-2

objects of  process  now  more  runs  held by
PIL.Image   0        30   +20   10    shop.KEPT → dict[…]"""
LOG = "\n".join(
    (
        "worker process 0 (pid 2) was lost while it ran shop.pull id-1: killed (signal 9)",
        "worker process 1 (pid 3) was lost while it ran shop.quit id-2: exited (exit code 0)",
    )
)


def point(
    metric: c.Metric, value: float, of: Mapping[str, Any], count: int = 0, high: float = 0
) -> Point:
    return Point(metric.name, metric.unit, {}, of, 0, S, value, count, 0, high)


def event(kind: c.Event, **of: Any) -> Event:
    names = {name.rpartition(".")[2]: name for name in kind.attributes}
    names |= {"task": c.TASK_NAME, "task_id": c.TASK_ID}
    given = {names[key]: value for key, value in of.items()}
    return Event(kind.name, "INFO", "", S, {}, given)


SHOOT, DUMP, PULL = ({c.TASK_NAME: f"shop.{task}"} for task in ("shoot", "dump", "pull"))
GROW, SHRINK = ({c.DIRECTION: direction} for direction in (c.GROW, c.SHRINK))
CHILD, MAIN = {c.SLOT: "0"}, {c.SLOT: "main"}
POINTS = (
    point(c.PROCESS_EXITS, 12, {**CHILD, c.EXIT_REASON: "killed"}),
    point(c.PROCESS_EXITS, 3, {**CHILD, c.EXIT_REASON: "exited"}),
    point(c.EXITS_REPEATED, 11, PULL),
    point(c.DESCENDANTS_LEFT_SIZE, 130 * MIB, SHOOT),
    point(c.TREE_PEAK, 75 * MIB, SHOOT, 1),
    point(c.MESSAGES, 4_000, {c.MESSAGE_STATE: "scheduled"}),
    point(c.MESSAGES_SIZE, 80 * MIB, {c.MESSAGE_STATE: "scheduled"}),
    point(c.MEMORY, 50 * MIB, MAIN),
    point(c.MEMORY, 150 * MIB, MAIN),
    point(c.THREADS, 2, CHILD),
    point(c.THREADS, 90, CHILD),
    point(c.THREADS_RETAINED, 50, {**SHOOT, **GROW}, 50),
    point(c.THREADS_RETAINED, 1, {**DUMP, **GROW}, 1),
    point(c.THREADS_RETAINED, 1, {**DUMP, **SHRINK}, 1),
    point(c.HEAP_GARBAGE, 50 * 200_000, {**SHOOT, **GROW}, 50),
    point(c.HEAP_GARBAGE, 50 * 90, {**DUMP, **GROW}, 50),
    point(c.RSS_PEAK, 500 * MIB, DUMP, 4, 210 * MIB),
    point(c.RSS_PEAK, 40 * MIB, SHOOT, 40, MIB),
    point(c.MALLOC_FREE, 9 * MIB, CHILD),
)
DEATHS = tuple(
    event(
        c.PROCESS_LOST, task="shop.pull", task_id="id-1", reason="killed", signal=9, repeated=number
    )
    for number in range(1, 13)
)
QUIT = event(c.PROCESS_LOST, task="shop.quit", task_id="id-2", reason="exited", code=0)
EVENTS = (
    *DEATHS,
    QUIT,
    event(c.DESCENDANTS_LEFT, task="shop.shoot"),
    event(c.CENSUS, type="PIL.Image", holder="shop.KEPT → dict[…]"),
)
SEEN = Seen(INSPECTED, POINTS, EVENTS, {}, 120.0, 0, 120 * S, (), LOG)
ONE_MESSAGE = replace(
    SEEN,
    inspected="\n".join(line for line in INSPECTED.splitlines() if "shop.quit" not in line),
    events=DEATHS,
    log=LOG.splitlines()[0],
)
KILLED, QUITS = Lost("pull", "killed", signal=9), Lost("quit", "exited", code=0)
THREADS = KeptByRuns("shoot", c.THREADS_RETAINED, c.THREADS)
TRUE: tuple[tuple[Finding, Seen], ...] = (
    (Losses((KILLED, QUITS)), SEEN),
    (KillsAgain("pull", 10, 250 * MIB), ONE_MESSAGE),
    (LeavesProcesses("shoot", 60 * MIB), SEEN),
    (HoldsMessages("scheduled", "wait for their time", 4_000, 50 * MIB), SEEN),
    (THREADS, SEEN),
    (KeptByRuns(ANY, c.THREADS_RETAINED, c.THREADS), SEEN),
    (FilesShown(1_000), SEEN),
    (LeavesGarbage("shoot", 100_000), SEEN),
    (PeakOf("dump", 200 * MIB), SEEN),
    (KeptFree(8 * MIB), SEEN),
    (HeldBy("Image", "KEPT"), SEEN),
)


@pytest.mark.parametrize(("finding", "seen"), TRUE, ids=lambda value: type(value).__name__)
def test_what_is_shown_is_not_missing(finding: Finding, seen: Seen) -> None:
    assert list(finding.missing(seen)) == []


@pytest.mark.parametrize(("finding", "seen"), TRUE, ids=lambda value: type(value).__name__)
def test_where_nothing_is_shown_all_of_it_is_missing(finding: Finding, seen: Seen) -> None:
    nothing = replace(seen, inspected="", points=(), events=(), log="")
    places = {text.partition(":")[0] for text in finding.missing(nothing)}
    by_metric_alone = isinstance(finding, (KeptByRuns, LeavesGarbage))
    assert places >= {"metric" if by_metric_alone else "inspect"}


@pytest.mark.parametrize(
    ("finding", "missing"),
    [
        (Losses((KILLED,)), {"inspect: not true: quit exited, code 0"}),
        (Losses((KILLED, replace(QUITS, code=7))), {"events: quit exited, code 7"}),
        (Losses((KILLED, QUITS, Lost("dump", "crashed"))), {"log: dump crashed"}),
        (Losses((KILLED, QUITS, Lost("dump", "crashed"))), {"metric: exits: crashed"}),
        (LeavesProcesses("dump", 60 * MIB), {"events: left behind by dump"}),
        (FilesShown(2_000), {"inspect: files: ['20', '1024']"}),
        (KeptFree(10 * MIB), {"metric: malloc free"}),
        (HeldBy("Image", "CACHE"), {"events: Image held by CACHE"}),
        (replace(THREADS, task="dump"), {"metric: celery.task.threads.retained: of shoot"}),
        (
            replace(THREADS, level=c.OPEN_FILES),
            {"metric: celery.worker.open_files: grows by []"},
        ),
    ],
    ids=str,
)
def test_what_is_not_shown_is_said_with_its_place(finding: Finding, missing: set[str]) -> None:
    assert missing <= set(finding.missing(SEEN))


@pytest.mark.parametrize(
    ("seen", "place"),
    [
        (SEEN, "events"),  # another process was lost, too
        (replace(ONE_MESSAGE, events=DEATHS[:1] * 12), "events"),  # each is the first
        (replace(ONE_MESSAGE, log=LOG.splitlines()[0] + "\n" + 11 * (LOG + "\n")), "log"),
        (replace(ONE_MESSAGE, points=()), "metric"),
        (
            replace(ONE_MESSAGE, inspected=ONE_MESSAGE.inspected.replace("  12  ", "  1   ")),
            "inspect",
        ),
        (replace(ONE_MESSAGE, inspected=ONE_MESSAGE.inspected.replace("310.0", "3.1")), "inspect"),
    ],
)
def test_a_message_that_kills_again_is_one_row_one_count_and_a_line_a_minute(
    seen: Seen, place: str
) -> None:
    missing = list(KillsAgain("pull", 10, 250 * MIB).missing(seen))
    assert place in {text.partition(":")[0] for text in missing}


def test_a_peak_that_another_task_has_too_is_none_of_its_own() -> None:
    both = replace(SEEN, points=(*POINTS, point(c.RSS_PEAK, 0, SHOOT, 1, 300 * MIB)))
    (text,) = PeakOf("dump", 200 * MIB).missing(both)
    assert text.startswith("metric: peak of dump")
