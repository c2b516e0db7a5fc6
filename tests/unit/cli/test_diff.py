"""``diff`` names the line that holds more than before, and says how much more."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

from otel_celery_memory.cli.common import size
from tests.unit.captures.examples import CACHE, CAPTURE, HEAP_AFTER, HEAP_BEFORE, LEAK, TAKEN_NS
from tests.unit.cli import leak
from tests.unit.cli.running import Command

TASK = "feeds.refresh"


def test_two_captures_around_a_thousand_runs_of_a_leak_name_its_line_and_bytes(
    command: Command,
) -> None:
    before, after = leak.around(1_000)
    files = command.file("before", before), command.file("after", after)
    first = command("diff", *files, "--json").json["top"][0]
    assert first["name"] == leak.NAME
    grown = 1_000 * leak.RUN_BYTES
    # Beside the bytes themselves, the list that keeps them grows on the same line.
    assert grown <= first["change"]["size_bytes"] < grown * 1.02
    assert 1_000 <= first["change"]["blocks"] <= 1_002
    row = next(line for line in command("diff", *files).out.splitlines() if "leak.py:" in line)
    assert row.split() == [
        *size(first["change"]["size_bytes"], signed=True).split(),
        f"+{first['change']['blocks']:,}",
        *size(first["before"]["size_bytes"]).split(),
        *size(first["after"]["size_bytes"]).split(),
        leak.NAME,
    ]


def test_two_snapshots_around_a_thousand_runs_do_so_where_they_are_trusted(
    command: Command,
) -> None:
    tracemalloc.start()
    try:
        files = [str(command.directory / name) for name in ("before", "after")]
        tracemalloc.take_snapshot().dump(files[0])
        for _ in range(1_000):
            leak.refresh()
        tracemalloc.take_snapshot().dump(files[1])
    finally:
        tracemalloc.stop()
    first = command("diff", *files, "--json", "--trust-pickle").json["top"][0]
    assert first["name"].endswith(leak.NAME)
    assert 1_000 * leak.RUN_BYTES <= first["change"]["size_bytes"] < 1_020 * leak.RUN_BYTES
    refused = command("diff", *files)
    assert (refused.code, refused.out) == (2, "")
    assert "loading one runs code that the file brings" in refused.err
    assert refused.err.count("\n") == 1


def test_heaps_are_a_table_of_what_changed(command: Command) -> None:
    printed = command("diff", command.file("a", HEAP_BEFORE), command.file("b", HEAP_AFTER))
    assert (printed.code, printed.err) == (0, "")
    assert (
        printed.out
        == """\
BEFORE of celery@web-1: heap, all that is traced and alive
  taken        2026-11-20 10:15:00 UTC, over 30.5 s: asked for by inspect
  tracing      budget, 3 frames
  processes    0 (pid 311, 81.2 MiB), 1 (pid 312)
AFTER of celery@web-1: heap, all that is traced and alive
  taken        2026-11-20 10:16:00 UTC, over 30.5 s: asked for by inspect
  tracing      budget, 3 frames
  processes    0 (pid 311, 81.2 MiB), 1 (pid 312)

      change  blocks    before     after  task           place
+1,000.0 KiB  +1,000  10.0 MiB  11.0 MiB  feeds.refresh  app/feeds.py:41 in refresh
      +512 B      +1    -512 B       0 B  mail.send      app/mail.py:9
         0 B       0   2.0 KiB   2.0 KiB  feeds.refresh  app/feeds.py:50 in refresh

+1,000.5 KiB in +1,001 blocks at 3 places
"""
    )


def test_sums_over_runs_are_a_table_of_means_without_a_sum(command: Command) -> None:
    grown = replace(CACHE, size_bytes=200 * 1_024)
    after = replace(CAPTURE, sites=(replace(LEAK, size_bytes=LEAK.size_bytes * 10), grown))
    after = replace(after, runs={TASK: 200}, processes=())
    files = command.file("a", CAPTURE), command.file("b", after)
    table = command("diff", *files).out.partition("\n\n")[2]
    assert (
        table
        == """\
change a run     before      after  task           place
      +922 B      102 B    1.0 KiB  feeds.refresh  app/feeds.py:50 in refresh
           -     -128 B          -  mail.send      app/mail.py:9
         0 B  512.0 KiB  512.0 KiB  feeds.refresh  app/feeds.py:41 in refresh

3 places
"""
    )
    assert "\nnote: up to 300 bytes lie at sites beyond" in command("diff", *files).out


def test_json_has_both_sides_and_the_change_that_means_something(command: Command) -> None:
    printed = command(
        "diff", command.file("a", HEAP_BEFORE), command.file("b", HEAP_AFTER), "--json", "--top=1"
    ).json
    assert (printed["before"]["taken_ns"], printed["after"]["taken_ns"]) == (
        TAKEN_NS,
        TAKEN_NS + 60 * 10**9,
    )
    assert (printed["notes"], printed["by"], printed["groups"]) == ([], "line", 3)
    old = {"size_bytes": 10_485_760, "blocks": 20_480, "runs": None, "run_bytes": None}
    new = {"size_bytes": 11_509_760, "blocks": 21_480, "runs": None, "run_bytes": None}
    assert printed["top"] == [
        {
            "task": TASK,
            "name": "app/feeds.py:41",
            "function": "refresh",
            "stack": [],
            "before": old,
            "after": new,
            "change": {"size_bytes": 1_024_000, "blocks": 1_000},
        }
    ]


def test_json_of_sums_over_runs_has_the_change_of_their_means_alone(command: Command) -> None:
    after = replace(CAPTURE, runs={TASK: 10, "mail.send": 4})
    files = command.file("a", CAPTURE), command.file("b", after)
    first = command("diff", *files, "--json").json["top"][0]
    assert first["before"]["run_bytes"] == 524_288.0
    assert first["after"] == {
        "size_bytes": 10_485_760,
        "blocks": 20_480,
        "runs": 10,
        "run_bytes": 1_048_576.0,
    }
    assert first["change"] == {"run_bytes": 524_288.0}


def test_stacks_and_filters_are_those_of_show(command: Command) -> None:
    files = command.file("a", HEAP_BEFORE), command.file("b", HEAP_AFTER)
    out = command("diff", *files, "--by=traceback", "--task=feeds.*", "--top=1").out
    assert out.endswith(
        "  app/feeds.py:41 in refresh\n    app/tasks.py:7\n    app/feeds.py:41\n"
        "    json/encoder.py:200\n\n+1,000.0 KiB in +1,000 blocks at 2 places, 1 shown\n"
    )
    chosen = command("diff", *files, "--include=*/mail.py", "--json").json["top"]
    assert [each["name"] for each in chosen] == ["app/mail.py:9"]


def test_captures_of_different_kinds_are_an_error_that_says_why(command: Command) -> None:
    printed = command("diff", command.file("a", HEAP_BEFORE), command.file("b", CAPTURE))
    assert (printed.code, printed.out) == (2, "")
    assert printed.err == (
        "otel-celery-memory: a capture of kind heap (all that is traced and alive) cannot be "
        "compared with one of kind runs (left alive by traced runs, added up)\n"
    )
