"""``show`` prints a capture for people and for programs, and writes a profile of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.captures.examples import CACHE, CAPTURE, HEAP_BEFORE, LEAK, TAKEN_NS
from tests.unit.cli.running import Command

HEADING = """\
Capture of celery@web-1: runs, left alive by traced runs, added up
  taken        2026-11-20 10:15:00 UTC, over 30.5 s: asked for by inspect
  tracing      budget, 3 frames
  processes    0 (pid 311, 81.2 MiB), 1 (pid 312)
  traced runs  feeds.refresh 20, mail.send 4

"""


def test_a_capture_of_runs_is_a_table_with_means_of_a_run(command: Command) -> None:
    printed = command("show", command.file("a", CAPTURE))
    assert (printed.code, printed.err) == (0, "")
    assert printed.out == HEADING + (
        """\
    size  blocks      a run  task           place
10.0 MiB  20,480  512.0 KiB  feeds.refresh  app/feeds.py:41 in refresh
 2.0 KiB       2      102 B  feeds.refresh  app/feeds.py:50 in refresh
  -512 B      -1     -128 B  mail.send      app/mail.py:9

10.0 MiB in 20,481 blocks at 3 places
300 B in 3 blocks more at sites beyond the capture's bound
"""
    )


def test_stacks_stand_below_their_rows_the_most_recent_call_last(command: Command) -> None:
    printed = command("show", command.file("a", CAPTURE), "--by=traceback", "--top=1")
    assert printed.out == HEADING + (
        """\
    size  blocks      a run  task           place
10.0 MiB  20,480  512.0 KiB  feeds.refresh  app/feeds.py:41 in refresh
    app/tasks.py:7
    app/feeds.py:41
    json/encoder.py:200

10.0 MiB in 20,481 blocks at 3 places, 1 shown
300 B in 3 blocks more at sites beyond the capture's bound
"""
    )


def test_a_heap_without_tasks_has_no_column_of_them(command: Command) -> None:
    sites = tuple(replace(site, task="") for site in HEAP_BEFORE.sites)
    capture = replace(
        HEAP_BEFORE, worker="", reason="", duration_s=0, frames=1, processes=(), sites=sites
    )
    printed = command("show", command.file("a", capture), "--by=file")
    assert (
        printed.out
        == """\
Capture: heap, all that is traced and alive
  taken        2026-11-20 10:15:00 UTC
  tracing      budget, 1 frame

    size  blocks  place
10.0 MiB  20,482  app/feeds.py
  -512 B      -1  app/mail.py

10.0 MiB in 20,481 blocks at 2 places
"""
    )


def test_a_capture_of_nothing_is_shown(command: Command) -> None:
    printed = command("show", command.file("a", replace(HEAP_BEFORE, sites=())))
    assert printed.code == 0
    assert printed.out.endswith("\nsize  blocks  place\n\n0 B in 0 blocks at 0 places\n")


def test_json_has_exact_bytes(command: Command) -> None:
    printed = command("show", command.file("a", CAPTURE), "--json", "--top=1")
    assert printed.json == {
        "capture": {
            "kind": "runs",
            "worker": "celery@web-1",
            "reason": "asked for by inspect",
            "taken_ns": TAKEN_NS,
            "duration_s": 30.5,
            "frames": 3,
            "tracing": "budget",
            "processes": [
                {"slot": "0", "pid": 311, "rss_bytes": 85_143_552},
                {"slot": "1", "pid": 312, "rss_bytes": None},
            ],
            "runs": {"feeds.refresh": 20, "mail.send": 4},
            "other_bytes": 300,
            "other_blocks": 3,
        },
        "by": "line",
        "groups": 3,
        "size_bytes": 10_487_296,
        "blocks": 20_481,
        "top": [
            {
                "task": "feeds.refresh",
                "name": "app/feeds.py:41",
                "function": "refresh",
                "stack": [],
                "size_bytes": 10_485_760,
                "blocks": 20_480,
                "run_bytes": 524_288.0,
            }
        ],
    }


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--task", "mail.*"], ["app/mail.py:9"]),
        (["--include", "*/mail.py"], ["app/mail.py:9"]),
        (["--include=*/mail.py", "--include=*/feeds.py"], [LEAK.name, CACHE.name, "app/mail.py:9"]),
        (["--exclude", "*/mail.py", "--exclude=*/tasks.py"], [LEAK.name, CACHE.name]),
        (["--include", "*/feeds.py", "--exclude", "*"], []),
    ],
)
def test_sites_are_filtered(command: Command, options: list[str], names: list[str]) -> None:
    printed = command("show", command.file("a", CAPTURE), "--json", *options)
    assert [each["name"] for each in printed.json["top"]] == names


def test_a_path_is_needed(command: Command) -> None:
    assert command("show").code == 2
    assert command("show", str(Path("/nowhere")), "--top=0").code == 2
