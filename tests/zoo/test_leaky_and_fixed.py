"""The benchmark's table of RSS by runs, from telemetry that is made up."""

from __future__ import annotations

from benchmarks.leaky_and_fixed import Level, Variant, levels, table
from demo.receiver import Point
from otel_celery_memory import conventions as c
from tests.zoo.said import Said

SECOND_NS = 10**9
MIB = 1 << 20


def exported(at_s: int, runs: int, rss_mib: int) -> list[Point]:
    at_ns = at_s * SECOND_NS
    name = {c.TASK_NAME: "bench.list_leaky"}
    return [
        Point(c.MEMORY.name, "By", {}, {c.SLOT: "main"}, 0, at_ns, 99 * MIB),
        Point(c.MEMORY.name, "By", {}, {c.SLOT: "0"}, 0, at_ns, rss_mib * MIB),
        Point(c.MEASURED.name, "{task}", {}, name, 0, at_ns, runs),
    ]


POINTS = [*exported(1, 100, 50), *exported(2, 200, 60), *exported(3, 300, 70)]
SAID = (
    Said(2 * SECOND_NS, "suspected", "python", "task", "list_leaky"),
    Said(3 * SECOND_NS, "leaking", "python", "task", "list_leaky"),
)


def test_a_level_is_the_child_s_rss_at_the_first_export_after_so_many_runs() -> None:
    assert levels(POINTS, SAID, "list_leaky", (1, 150, 200, 300, 400)) == (
        Level(1, 50 * MIB, ""),
        Level(150, 60 * MIB, "suspected"),
        Level(200, 60 * MIB, "suspected"),
        Level(300, 70 * MIB, "leaking"),
    )


def test_the_table_has_a_row_for_each_number_of_runs_and_the_words_below() -> None:
    leaky = Variant(
        "list_leaky", (Level(1, 50 * MIB, ""), Level(9, 60 * MIB, "leaking")), ("Yes.",)
    )
    fixed = Variant("list_fixed", (Level(1, 50 * MIB, ""), Level(9, 50 * MIB, "")), ())
    _, head, first, last, _, *words = table([leaky, fixed]).splitlines()
    assert head.split() == ["runs", "list,", "leaky", "list,", "fixed"]
    assert first.split() == ["1", "50.0", "MiB", "50.0", "MiB"]
    assert last.split() == ["9", "60.0", "MiB", "leaking", "50.0", "MiB"]
    assert words == ["list, leaky: Yes.", "list, fixed: nothing was said"]
