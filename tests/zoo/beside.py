"""Tasks that run beside a case in a mix: one that fails, and one that leaks as well."""

from __future__ import annotations

from tests.truth.app import app

_second: list[str] = []


@app.task
def flaky(number: int) -> int:
    """Raises in 15 % of its runs."""
    if number % 20 < 3:
        raise ValueError(f"order {number} is empty")
    return number


@app.task
def second_leak(number: int) -> None:
    """Keeps 3 KB."""
    _second.append(str(number).rjust(3_000))  # the line
