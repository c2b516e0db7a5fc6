"""The rows of the zoo, and what runs beside them."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.truth.case import BESIDE, shapes
from tests.zoo import cases
from tests.zoo.collection import HARD, HEALTHY, HELD, NOT_HELD, rows
from tests.zoo.mixes import MIXES, alone, mixed, recycled, second_leak

ROWS = rows()
BY_NAME = {row.shape.case.name: row.shape for row in ROWS}


def test_every_case_is_in_the_zoo_once() -> None:
    every = [shape.case.name for shape in (*shapes(), *shapes(cases))]
    assert Counter(row.shape.case.name for row in ROWS) == Counter(every)


def test_what_must_not_alarm_is_what_nobody_leaks() -> None:
    assert {row.part for row in ROWS} == {HELD, NOT_HELD, HARD, HEALTHY}
    wrong = [row for row in ROWS if (row.part == HEALTHY) != (row.shape.case.leaks is None)]
    assert wrong == []


def test_every_leak_says_where_it_can_be_found() -> None:
    allowed = {"native", "mapping", "file_descriptors", "processes", "messages"}
    nowhere = [
        row.shape.case
        for row in ROWS
        if row.shape.case.leaks and not row.shape.lines and not row.shape.case.holder
    ]
    assert [case.name for case in nowhere if not allowed & set(case.kinds)] == []


def test_what_fills_up_is_a_task_of_the_case_or_the_main_process() -> None:
    assert [
        shape.case.name
        for shape in BY_NAME.values()
        if set(shape.case.fills) - {*shape.case.rates, "main"}
    ] == []


@pytest.mark.parametrize("mix", MIXES)
def test_a_mix_is_in_the_name(mix: str) -> None:
    shape = MIXES[mix](BY_NAME["a list that only grows"])
    assert shape is not None
    assert shape.case.name == f"a list that only grows, {mix.replace('-', ' ')}"


def test_alone_is_nothing_but_the_case_s_own_tasks() -> None:
    shape = alone(BY_NAME["a list that only grows"])
    assert set(shape.all_rates) == {"tests.zoo.cases.list_grows.feed"}
    assert shape.program.imports == ()


def test_mixed_are_tasks_that_are_healthy_that_spike_and_that_fail() -> None:
    shape = mixed(BY_NAME["a list that only grows"])
    assert set(shape.all_rates) == {
        *BESIDE,
        "tests.zoo.beside.flaky",
        "tests.zoo.cases.list_grows.feed",
    }
    assert shape.program.imports == ("tests.zoo.beside",)


def test_recycled_are_cases_in_a_pool_of_the_usual_kind() -> None:
    shape = recycled(BY_NAME["a list that only grows"])
    assert shape is not None
    assert "--max-tasks-per-child=300" in shape.case.worker
    assert recycled(BY_NAME["overlapping in gevent"]) is None


def test_a_second_leak_is_beside_the_answer_and_is_the_answer_where_nobody_leaks() -> None:
    leaking = second_leak(BY_NAME["a list that only grows"])
    assert (leaking.case.leaks, leaking.case.also) == ("feed", ("second_leak",))
    healthy = second_leak(BY_NAME["a cache that fills up"])
    assert (healthy.case.leaks, healthy.case.fills) == ("second_leak", ("render",))
    (line,) = healthy.lines
    assert line.startswith("beside.py:")
