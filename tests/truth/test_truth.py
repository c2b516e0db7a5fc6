"""Who leaks, as a person concludes it from real workers; `make truth` has all the cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.truth.__main__ import report
from tests.truth.case import Shape, shapes
from tests.truth.conclusions import Seen, conclude
from tests.truth.worker_run import run_cases

TELLING = (
    "a long task that keeps much",
    "four tasks: leak and sleep",
    "native memory held by objects",
    "native memory lost",
)
"""Large objects, small ones, and what only malloc knows of."""
BESIDE_LINES = (
    "a message that kills again and again",
    "messages that wait for their time",
    "processes left by a time limit",
    "tasks that end their process",
)
"""What no line of a task's own shows: ends, the main process, other processes."""
_FACTOR = 20


@pytest.mark.long
def test_the_task_that_leaks_is_the_first_whoever_has_the_largest_working_set(
    tmp_path: Path,
) -> None:
    def wrong(shape: Shape, seen: Seen) -> str:
        concluded = conclude(shape, seen)
        told = {concluded.inspect.task, concluded.telemetry.task}
        is_right = told == {shape.case.leaks} and (concluded.factor or 0) >= _FACTOR
        return "" if is_right else report(concluded, seen)

    chosen = [shape for shape in shapes() if shape.case.name in TELLING]
    assert len(chosen) == len(TELLING)
    results = run_cases(chosen, tmp_path, wrong, together=len(chosen))
    assert "\n".join(filter(None, results)) == ""


@pytest.mark.long
def test_ends_messages_and_processes_left_are_shown_with_their_task(tmp_path: Path) -> None:
    def wrong(shape: Shape, seen: Seen) -> str:
        concluded = conclude(shape, seen)
        return report(concluded, seen) if concluded.missing else ""

    chosen = [shape for shape in shapes() if shape.case.name in BESIDE_LINES]
    assert len(chosen) == len(BESIDE_LINES)
    results = run_cases(chosen, tmp_path, wrong, together=len(chosen))
    assert "\n".join(filter(None, results)) == ""
