"""A part that raises is told once, tried again and switched off; the others go on."""

from __future__ import annotations

import pytest

from otel_celery_memory.circuit_breaker import TRIES, CircuitBreaker


class Part:
    """Raises for as long as it is broken."""

    def __init__(self) -> None:
        self.broken = True
        self.runs = 0

    def __call__(self) -> None:
        self.runs += 1
        if self.broken:
            raise RuntimeError("broken")


def test_a_part_that_raises_again_and_again_is_switched_off_with_two_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str] = []
    contained, part = CircuitBreaker(on_switched_off=told.append), Part()
    for _ in range(10):
        contained.run("limits", part)
    assert (part.runs, contained.switched_off(), told) == (TRIES, ["limits"], ["limits"])
    assert [(r.levelname, r.getMessage(), bool(r.exc_info)) for r in caplog.records] == [
        ("ERROR", "otel_celery_memory: limits failed; this is told once", True),
        ("ERROR", "otel_celery_memory: limits failed again and is switched off", False),
    ]


def test_a_part_that_works_again_in_between_is_not_switched_off() -> None:
    contained, part = CircuitBreaker(), Part()
    for number in range(30):
        part.broken = number % TRIES != 0
        contained.run("limits", part)
    assert (part.runs, contained.switched_off()) == (30, [])


def test_an_indispensable_part_is_said_to_be_off_and_goes_on() -> None:
    contained, part = CircuitBreaker(("records",)), Part()
    for _ in range(10):
        contained.run("records", part)
    assert (part.runs, contained.switched_off()) == (10, ["records"])


def test_one_part_s_failure_leaves_the_others_on() -> None:
    contained, broken, whole = CircuitBreaker(), Part(), Part()
    whole.broken = False
    for _ in range(10):
        contained.run("limits", broken)
        contained.run("requests", whole)
    assert (broken.runs, whole.runs, contained.switched_off()) == (TRIES, 10, ["limits"])
