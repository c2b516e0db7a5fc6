"""A part that raises is logged once, tried again and switched off; the others go on."""

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
    switched_off: list[str] = []
    breaker, part = CircuitBreaker(on_switched_off=switched_off.append), Part()
    for _ in range(10):
        breaker.run("limits", part)
    assert (part.runs, breaker.switched_off(), switched_off) == (TRIES, ["limits"], ["limits"])
    assert [(r.levelname, r.getMessage(), bool(r.exc_info)) for r in caplog.records] == [
        ("ERROR", "otel_celery_memory: limits failed; further failures are not logged", True),
        ("ERROR", "otel_celery_memory: limits failed again and is switched off", False),
    ]


def test_a_part_that_works_again_in_between_is_not_switched_off() -> None:
    breaker, part = CircuitBreaker(), Part()
    for number in range(30):
        part.broken = number % TRIES != 0
        breaker.run("limits", part)
    assert (part.runs, breaker.switched_off()) == (30, [])


def test_an_indispensable_part_is_reported_as_switched_off_and_goes_on() -> None:
    breaker, part = CircuitBreaker(("records",)), Part()
    for _ in range(10):
        breaker.run("records", part)
    assert (part.runs, breaker.switched_off()) == (10, ["records"])


def test_one_part_s_failure_leaves_the_others_on() -> None:
    breaker, broken, whole = CircuitBreaker(), Part(), Part()
    whole.broken = False
    for _ in range(10):
        breaker.run("limits", broken)
        breaker.run("requests", whole)
    assert (broken.runs, whole.runs, breaker.switched_off()) == (TRIES, 10, ["limits"])
