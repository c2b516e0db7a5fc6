"""A worker as it is set up in an afternoon: a task leaks, one has pandas, one sleeps, one fails."""

from __future__ import annotations

import time

from tests.truth.app import app
from tests.truth.case import Case

_orders: list[dict[str, str]] = []
_LEAK = {"order": 6.0}
_REPORT = {"report": 2.0}
_SLEEP = {"wait": 4.0}
_FAIL = {"flaky": 10.0}
_ORDERS = ("_orders",)
_PANDAS = ("pandas",)
_TWO_MINUTES_S = 114  # what is asked then takes six seconds
CASES = (
    Case(
        "four tasks",
        "order",
        {**_LEAK, **_REPORT, **_SLEEP, **_FAIL},
        needs=_PANDAS,
        seconds=_TWO_MINUTES_S,
        holder=_ORDERS,
    ),
    Case(
        "four tasks: leak and pandas",
        "order",
        {**_LEAK, **_REPORT},
        needs=_PANDAS,
        seconds=_TWO_MINUTES_S,
        holder=_ORDERS,
    ),
    Case(
        "four tasks: leak and sleep",
        "order",
        {**_LEAK, **_SLEEP},
        seconds=_TWO_MINUTES_S,
        holder=_ORDERS,
    ),
    Case(
        "four tasks: leak and failures",
        "order",
        {**_LEAK, **_FAIL},
        seconds=_TWO_MINUTES_S,
        holder=_ORDERS,
    ),
    Case(
        "four tasks: no leak",
        None,
        {**_REPORT, **_SLEEP, **_FAIL},
        needs=_PANDAS,
        seconds=_TWO_MINUTES_S,
    ),
)


@app.task
def order(number: int) -> None:
    """Keeps a dict of 17 KiB."""
    _orders.append({f"item{n}": f"{number}/{n}".rjust(130) for n in range(80)})  # the line


@app.task
def report(number: int) -> float:
    """Computes on 2 MiB."""
    import numpy
    import pandas

    table = pandas.DataFrame(numpy.full((32_768, 8), float(number)), columns=list("abcdefgh"))
    return float(table.groupby(table["a"] % 7).mean().to_numpy().sum())


@app.task
def wait(number: int) -> int:
    """Waits."""
    time.sleep(0.1)
    return number


@app.task
def flaky(number: int) -> int:
    """Raises in 15 % of its runs."""
    if number % 20 < 3:
        raise ValueError(f"order {number} is empty")
    return number
