"""A line in the worker's log when something leaks, and one when that ends."""

from __future__ import annotations

from dataclasses import replace

from otel_celery_memory.leaks.verdict import State
from otel_celery_memory.reporter.leak_log import LEAKS_MAX, LeakLog
from tests.unit.leaks.examples import VERDICT

SUSPECTED, ENDED = (replace(VERDICT, state=state) for state in (State.SUSPECTED, State.ENDED))


def lines_of(*verdicts: object) -> list[str]:
    lines: list[str] = []
    log = LeakLog(lines.append)
    for verdict in verdicts:
        log.record(verdict)  # type: ignore[arg-type]
    return [line.split(" (")[0].removeprefix("otel_celery_memory: ") for line in lines]


LEAKS = "shop.tasks.import_feed leaks 10.2 KiB a run"
LEAKED = "shop.tasks.import_feed kept 10.2 KiB a run"


def test_a_suspicion_that_ends_is_no_line() -> None:
    assert lines_of(SUSPECTED, ENDED) == []


def test_a_leak_is_a_line_however_often_its_numbers_change_and_one_more_at_its_end() -> None:
    assert lines_of(SUSPECTED, VERDICT, replace(VERDICT, runs=5_000), ENDED, ENDED) == [
        LEAKS,
        LEAKED,
    ]


def test_a_leak_that_becomes_a_suspicion_again_has_its_line_already() -> None:
    assert lines_of(VERDICT, SUSPECTED, VERDICT) == [LEAKS]


def test_a_leak_that_comes_back_is_a_new_one() -> None:
    assert lines_of(VERDICT, ENDED, VERDICT) == [LEAKS, LEAKED, LEAKS]


def test_two_leaks_have_a_line_each() -> None:
    other = replace(VERDICT, task="shop.tasks.sell")
    assert lines_of(VERDICT, other) == [LEAKS, LEAKS.replace("import_feed", "sell")]


def test_a_name_cannot_forge_a_line() -> None:
    (line,) = lines_of(replace(VERDICT, task="a\nb\x1b"))
    assert line.startswith("a?b? leaks ")


def test_the_leaks_whose_end_is_awaited_are_bounded() -> None:
    many = [replace(VERDICT, task=f"t{number}") for number in range(LEAKS_MAX + 1)]
    lines = lines_of(*many, *(replace(each, state=State.ENDED) for each in many))
    assert sum("kept" in line for line in lines) == LEAKS_MAX
