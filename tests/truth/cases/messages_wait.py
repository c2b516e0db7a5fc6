"""The main process holds thousands of messages that wait for their time; nobody leaks."""

from __future__ import annotations

from tests.truth.app import MIB, app
from tests.truth.case import Case
from tests.truth.findings import HoldsMessages

_COUNT = 3_000
CASES = (
    Case(
        "messages that wait for their time",
        None,
        {"remind": 100, "count": 5},
        arguments={"remind": lambda number: (f"{number}".rjust(16_000),)},
        at_most={"remind": _COUNT},
        options={"remind": {"countdown": 7_200}},
        shows=(HoldsMessages("scheduled", "wait for their time", _COUNT, 40 * MIB),),
        fills=("main",),
    ),
)


@app.task
def remind(text: str) -> int:
    """Is never run."""
    return len(text)


@app.task
def count(number: int) -> int:
    """Is healthy."""
    return number + 1
