"""Verdicts of real workers on a few rows of the zoo, in a hurry; `make zoo` has all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from demo.receiver import Received
from tests.truth.case import Shape
from tests.truth.conclusions import Seen
from tests.truth.worker_run import run_cases
from tests.zoo.__main__ import judged_of
from tests.zoo.collection import rows
from tests.zoo.judgement import judge
from tests.zoo.mixes import mixed
from tests.zoo.said import said_in
from tests.zoo.table import report

IN_A_HURRY = {
    "OTEL_CELERY_MEMORY_WARM_UP": "0",
    "OTEL_CELERY_MEMORY_SITES_INTERVAL": "2",
    "OTEL_CELERY_MEMORY_EXPORT_INTERVAL": "1",
}
LEAKS: Mapping[str, Mapping[str, float]] = {
    "a list that only grows": {"feed": 40},
    "files kept open": {"upload": 15},
}
"""Rates by case: higher than in the zoo, where nobody is in a hurry."""
ALONE_IN_THEIR_PROCESS: Mapping[str, Mapping[str, float]] = {"a list that only grows": {"feed": 60}}
FILLS: Mapping[str, Mapping[str, float]] = {"a small cache that fills up": {"render_small": 60}}
LEAKS_WITHIN_S, FULL_WITHIN_S = 150.0, 70.0
"""The cache is full in both of its processes after some 65 seconds at its rate."""


def in_a_hurry(rates: Mapping[str, Mapping[str, float]], seconds: float) -> list[Shape]:
    found = [mixed(row.shape) for row in rows() if row.shape.case.name in rates]
    assert len(found) == len(rates)
    return [
        replace(
            shape,
            case=replace(
                shape.case,
                rates=rates[shape.case.name.rpartition(",")[0]],
                seconds=seconds,
                environ=IN_A_HURRY,
            ),
        )
        for shape in found
    ]


def is_told(shape: Shape, received: Received) -> bool:
    """Whether who leaks was told with all that there is to tell."""
    judgement = judge(shape, said_in(list(received.events)), 0, lambda _: 0)
    return judgement.leaks and judgement.right


def wrong(shape: Shape, seen: Seen) -> str:
    judgement = judged_of(shape, seen)
    return "" if judgement.right else report(judgement, seen)


def delivering_in_process(rates: Mapping[str, Mapping[str, float]]) -> list[Shape]:
    """Without a reporter: each process concludes what leaks in itself."""
    environ = {**IN_A_HURRY, "OTEL_CELERY_MEMORY_DELIVERY": "inprocess"}
    return [
        replace(
            shape,
            case=replace(shape.case, name=f"{shape.case.name}, in process", environ=environ),
        )
        for shape in in_a_hurry(rates, LEAKS_WITHIN_S)
    ]


@pytest.mark.usefixtures("needs_redis")
def test_leaks_are_told_by_task_kind_and_place_and_a_cache_that_fills_up_is_none(
    tmp_path: Path,
) -> None:
    chosen = [
        *in_a_hurry(LEAKS, LEAKS_WITHIN_S),
        *delivering_in_process(ALONE_IN_THEIR_PROCESS),
        *in_a_hurry(FILLS, FULL_WITHIN_S),
    ]
    results = run_cases(chosen, tmp_path, wrong, len(chosen), is_told)
    assert "\n".join(filter(None, results)) == ""
