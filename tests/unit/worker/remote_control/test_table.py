"""The reporter's view as a table for people."""

from __future__ import annotations

from typing import Any

import pytest

from otel_celery_memory.ipc.records import size_text
from otel_celery_memory.worker.remote_control.commands import view_text

MIB = 1 << 20
_UNKNOWN = {
    **{"unique": None, "unique_at_start": None, "copied": None},
    **{"open_files": None, "malloc_free": None},
}
VIEW: dict[str, Any] = {
    "verdicts": [
        {"text": "app.grow leaks 1.0 KiB a run (40 runs).", "state": "leaking"},
        {"text": "app\x1bnew may leak 1 B a run (2 runs).", "state": "suspected"},
    ],
    "verdicts_decided": True,
    "tracing": {
        "mode": "budget",
        "task_seconds": 1_704.9,
        "spent_seconds": 10.809,
        "overhead": 0.00634,
        "aborted": 3,
    },
    "processes": [
        {**_UNKNOWN, "slot": "main", "pid": 100, "rss": 52_428_800, "task": None},
        {**_UNKNOWN, "slot": "0", "pid": 101, "rss": None, "task": "app.grow"},
        {
            **{"slot": "1", "pid": 102, "rss": 420 * MIB, "task": None},
            **{"unique": 397 * MIB, "unique_at_start": 57 * MIB, "copied": 340 * MIB},
            **{"open_files": 1_024, "malloc_free": 12 * MIB},
        },
    ],
    "messages": {
        **{"active": 2, "active_bytes": 1_024, "reserved": 0, "reserved_bytes": 0},
        **{"scheduled": 4_000, "scheduled_bytes": None, "revoked": 3},
    },
    "descendants": [
        {
            **{"slot": "0", "task": "app.grow", "processes": 3, "left": 1},
            **{"rss": 90 * MIB, "unique": 70 * MIB},
        },
        {"slot": "main", "task": None, "processes": 1, "left": 0, "rss": None, "unique": None},
    ],
    "tasks": [
        {
            "name": "app.grow",
            "runs": 12_345,
            "retained_per_run": 1_100,
            "retained_at_most": 1_300,
            "sampled_runs": 250,
            "peak": 8 * MIB,
            "tree_peak": 98 * MIB,
            "largest": 2 * MIB,
            "traced_runs": 40,
            "traced_per_run": -3,
        },
        {
            "name": "app.new",
            "runs": 1,
            "retained_per_run": None,
            "retained_at_most": None,
            "sampled_runs": 0,
            "peak": None,
            "largest": 0,
            "traced_runs": 0,
            "traced_per_run": None,
            "not_traced": "time_limit",
        },
    ],
    "sites": [
        {
            "name": "app/feeds.py:41",
            "function": "load",
            "task": "app.grow",
            "window": "complete",
            "size": 1_057,
            "blocks": 1,
            "runs": 40,
            "rate": 1_048_576,
            "age_seconds": 0,
        },
        {
            "name": "app/threads.py:9",
            "function": None,
            "task": None,
            "window": "partial",
            "size": 5_000,
            "blocks": 1,
            "runs": 1,
            "rate": None,
            "age_seconds": 28_900,
        },
    ],
    "losses": [
        {
            "age_seconds": 4,
            "slot": "0",
            "pid": 99,
            "task": "app.grow",
            "task_id": "id-1",
            "reason": "oom_kill",
            "signal": 9,
            "exit_code": None,
            "rss": 52_428_800,
            "run_peak": 1_048_576,
            "redelivered": True,
            "times": 1_030,
        },
        {
            "age_seconds": 7_200,
            "slot": "1",
            "pid": 98,
            "task": "app.leave",
            "task_id": "id\n2",
            "reason": "exited",
            "signal": None,
            "exit_code": 0,
            "rss": None,
            "run_peak": None,
            "redelivered": False,
            "times": 1,
        },
        {
            "age_seconds": 90,
            "slot": "main",
            "pid": 97,
            "task": None,
            "task_id": None,
            "reason": "killed",
            "signal": None,
            "exit_code": None,
            "rss": None,
            "run_peak": None,
            "redelivered": False,
            "times": 1,
        },
    ],
    "captures": [
        {"number": 3, "state": "running"},
        {
            "number": 2,
            "state": "failed",
            "kind": "runs",
            "sites": 4,
            "runs": 10,
            "file": None,
            "error": "the disk is full",
        },
        {
            "number": 1,
            "state": "complete",
            "kind": "heap",
            "sites": 9,
            "runs": 0,
            "file": "/var/captures/a.gz",
            "error": None,
        },
    ],
    "objects": [
        {
            **{"slot": "0", "type": "app.Order", "objects": 10_001, "growth": 10_000, "runs": 10},
            **{"holder": "app.SEEN → list[…]", "alike": 8, "sampled": 8, "problem": None},
        },
        {
            **{"slot": "1", "type": "dict", "objects": 900, "growth": 90, "runs": 10},
            **{"holder": "app.Feed.rows → list[…]", "alike": 5, "sampled": 8, "problem": None},
        },
        {"slot": "2", "problem": "a limit of memory is near"},
    ],
    "switched_off": [{"slot": "0", "part": "heap"}, {"slot": "reporter", "part": "limits"}],
}

TEXT = """\
app.grow leaks 1.0 KiB a run (40 runs).

app?new may leak 1 B a run (2 runs).

tracing budget: 10.81 s of 1,704.9 s of task time in ten minutes (0.63%), 3 runs aborted; switched \
off: heap (0), limits (reporter)

process  pid  RSS        unique     malloc free  files  task
main     100  50.0 MiB   -          -            -      -
0        101  -          -          -            -      app.grow
1        102  420.0 MiB  397.0 MiB  12.0 MiB     1,024  -

1: unique 397.0 MiB of 420.0 MiB, 57.0 MiB at its start: 340.0 MiB that it shared with main are \
copied

messages in main: 2 run (bodies: 1.0 KiB), 4,000 wait for their time (bodies: -), 3 ids are revoked

started by  process  processes  RSS       unique    left behind
app.grow    0        3          90.0 MiB  70.0 MiB  1
-           main     1          -         -         0

task      runs    retained/run  at most  sampled  peak     with processes  largest  traced runs  \
traced/run
app.grow  12,345  1.1 KiB       1.3 KiB  250      8.0 MiB  98.0 MiB        2.0 MiB  40           \
-3 B
app.new   1       -             -        0        -        -               0 B      0            -

not traced  because
app.new     tracing could bring it to its time limit

site              left/run  a minute  runs  of        seen     task
app/feeds.py:41   1.0 KiB   1.0 MiB   40    complete  now      app.grow
app/threads.py:9  4.9 KiB   -         1     partial   8 h ago  -

lost  seen       how                 RSS       run took  times  task       id
0     4 s ago    oom_kill, signal 9  50.0 MiB  1.0 MiB   1,030  app.grow   id-1
1     2 h ago    exited, code 0      -         -         1      app.leave  id?2
main  2 min ago  killed              -         -         1      -          -

capture  state     kind  sites  runs  file
3        running   -     -      -     -
2        failed    runs  4      10    the disk is full
1        complete  heap  9      0     /var/captures/a.gz

objects of  process  now     more     runs  held by
app.Order   0        10,001  +10,000  10    app.SEEN → list[…]
dict        1        900     +90      10    app.Feed.rows → list[…] (5 of 8)

no census  because
2          a limit of memory is near"""


def test_a_view_becomes_this_text() -> None:
    assert view_text(VIEW) == TEXT


@pytest.mark.parametrize(
    ("warm_up_s", "line"),
    [(0, "no leak is suspected"), (42, "no leak is suspected (warming up for 42 s more)")],
)
def test_that_nothing_leaks_is_said_on_top(warm_up_s: int, line: str) -> None:
    view = {"verdicts": [], "verdicts_decided": True, "warm_up_seconds": warm_up_s}
    first, rest = view_text(view).split("\n\n")
    assert first == line
    assert "warms up" not in rest


def test_while_it_is_not_decided_what_runs_keep_that_is_said_too() -> None:
    tasks = [{**VIEW["tasks"][0], "name": "app.a", "retained_per_run": 7_500}]
    tasks.append({**VIEW["tasks"][0], "name": "app.b", "retained_per_run": 0})
    view = {"verdicts": [], "verdicts_decided": True, "tasks": tasks}
    assert view_text(view).startswith("no leak is suspected yet: runs of app.a keep something, ")


def test_where_nobody_decides_it_is_not_said_that_nothing_leaks() -> None:
    assert "leak" not in view_text({"verdicts": [], "verdicts_decided": False})


def test_of_many_verdicts_the_first_are_shown_and_the_rest_counted() -> None:
    verdicts = [{"text": f"t{number} leaks."} for number in range(17)]
    text = view_text({"verdicts": verdicts, "verdicts_decided": True})
    assert text.split("\n\n")[13:16] == [
        "t13 leaks.",
        "t14 leaks.",
        "... and 2 more verdicts",
    ]


def test_peaks_with_processes_have_no_column_where_no_run_started_any() -> None:
    tasks = [{**task, "tree_peak": None} for task in VIEW["tasks"]]
    assert "with processes" not in view_text({**VIEW, "tasks": tasks})


def test_an_empty_view_is_one_line() -> None:
    assert view_text({}) == "tracing ?: nothing measured in ten minutes, 0 runs aborted"


@pytest.mark.parametrize(
    ("task_s", "spent"),
    [
        (24.9, "1.00 s of 24.9 s of task time in ten minutes"),
        (25.0, "1.00 s of 25.0 s of task time in ten minutes (4.00%)"),
    ],
)
def test_the_cost_of_tracing_is_a_share_of_task_time_where_there_is_enough_of_it(
    task_s: float, spent: str
) -> None:
    tracing = {"mode": "budget", "task_seconds": task_s, "spent_seconds": 1.0, "aborted": 0}
    text = view_text({"tracing": tracing}, 25.0)
    assert text == f"tracing budget: {spent}, 0 runs aborted"


def test_what_the_page_had_no_room_for_is_counted() -> None:
    text = view_text({"left_out": {"sites": 95, "tasks": 1_000}})
    assert text.endswith(", 0 runs aborted; no room for 95 sites, 1,000 tasks more")


def test_of_long_lists_the_first_are_shown_and_the_rest_counted() -> None:
    process = VIEW["processes"][0]
    lines = view_text({"processes": [process] * 20}).splitlines()
    assert (len(lines), lines[-1]) == (2 + 1 + 15 + 1, "... and 5 more")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (-1, "-1 B"),
        (1_023, "1023 B"),
        (1_024, "1.0 KiB"),
        (-1_536, "-1.5 KiB"),
        (5 << 20, "5.0 MiB"),
        (3 << 40, "3072.0 GiB"),
    ],
)
def test_sizes_have_a_unit_and_a_sign(size_bytes: int | None, text: str) -> None:
    assert size_text(size_bytes) == text


def test_a_worker_that_warms_up_says_when_growth_is_told() -> None:
    assert view_text({"warm_up_seconds": 42}).endswith("; warms up, growth is told in 42 s")
    assert "warms up" not in view_text({"warm_up_seconds": 0})


@pytest.mark.parametrize(("copied", "rss"), [(15 * MIB, 20 * MIB), (30 * MIB, 400 * MIB)])
def test_a_little_that_is_copied_is_not_said(copied: int, rss: int) -> None:
    process = {**VIEW["processes"][2], "copied": copied, "rss": rss}
    assert "copied" not in view_text({"processes": [process]})


def test_a_main_process_that_holds_no_message_has_no_line() -> None:
    none = dict.fromkeys(VIEW["messages"], 0)
    assert "messages" not in view_text({"messages": none})
    assert "messages" not in view_text({"messages": None})


def test_rows_of_a_reporter_that_knew_less_are_shown_too() -> None:
    process = {"slot": "0", "pid": 1, "rss": 1_024, "task": None}
    task = {"name": "a", "runs": 1, "retained_per_run": 9, "traced_runs": 0, "traced_per_run": None}
    text = view_text({"processes": [process], "tasks": [task]})
    assert "0        1    1.0 KiB  -" in text
    assert "a     1     9 B           -" in text
