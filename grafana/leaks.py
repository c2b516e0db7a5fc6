"""The row of leaks on top of a page: the verdicts, the time that is left, and the rates."""

from __future__ import annotations

from collections.abc import Sequence

from grafana.frame import INSTANCE
from grafana.ids import PanelId
from grafana.names import (
    LEAK_HOLDER,
    LEAK_KIND,
    LEAK_STATE,
    LEAK_WHERE,
    SITE,
    SLOT,
    TASK,
    WORKER,
    series,
)
from grafana.panels import Panel, Query, Question, over_time, rows
from otel_celery_memory import conventions as c

KEYS = {
    LEAK_STATE: "State",
    TASK: "Task",
    LEAK_KIND: "Kind",
    LEAK_WHERE: "Where",
    SITE: "Place",
    LEAK_HOLDER: "Held by",
}
_NONE = "No leak is suspected."


def leaks(
    panels: tuple[PanelId, PanelId, PanelId],
    matchers: str,
    links: Sequence[tuple[str, str]] = (),
) -> list[Panel]:
    """Table, time left and rates, with these numbers; ``links`` are those of a task."""
    table, left, rates = panels
    return [
        _verdicts(table, matchers, links),
        _time_left(left, matchers),
        _rates(rates, matchers),
    ]


def _verdicts(number: PanelId, matchers: str, links: Sequence[tuple[str, str]]) -> Panel:
    by = ", ".join(KEYS)
    return rows(
        Question(
            number,
            "What leaks, and who holds it?",
            "The verdicts of all workers. `suspected` may be a cache that fills up, and pages "
            "nobody; `leaking` has grown beyond that and does not slow down. The place is the line "
            "that allocates it, the holder what must let go of it. Kinds that are not counted in "
            "bytes have no rate here: the event `celery.memory.leak` has it, in words.",
            "bytes",
            _NONE,
        ),
        # No topk: each column would have different rows.
        {
            "A run": (
                Query(f"max by ({by}) ({series(c.LEAK_RATE_LEVEL)}{{{matchers}}})"),
                "bytes",
            ),
            "Workers": (
                Query(f"sum by ({by}) ({series(c.LEAK_ACTIVE)}{{{matchers}}}) > 0"),
                "short",
            ),
        },
        keys=KEYS,
        width=24,
        links={TASK: links} if links else None,
    )


def _time_left(number: PanelId, matchers: str) -> Panel:
    left = f"{series(c.EXHAUSTION)}{{{INSTANCE}}}"
    leaking = f"{series(c.LEAK_ACTIVE)}{{{matchers}}} > 0"
    return over_time(
        Question(
            number,
            "How long until a limit is reached?",
            "Forecast of the workers with a verdict, nearest first. Slot main is the worker as a "
            "whole, a number one process of its pool. Below an hour an alert fires if something "
            "leaks there.",
            "s",
            f"{_NONE} Or no limit is in sight.",
        ),
        [
            Query(
                f"bottomk(10, min by (instance, {SLOT}) ({left} and on ({WORKER}) {leaking}))",
                f"{{{{instance}}}} {{{{{SLOT}}}}}",
            )
        ],
    )


def _rates(number: PanelId, matchers: str) -> Panel:
    rate = f"max by ({TASK}, {SITE}) ({series(c.LEAK_RATE_LEVEL)}{{{matchers}}})"
    return over_time(
        Question(
            number,
            "How much does a run leak, over time?",
            "What each run leaves behind, by task and place. A line ends with its verdict: after a "
            "fix within minutes.",
            "bytes",
            _NONE,
        ),
        [Query(f"topk(10, {rate})", f"{{{{{TASK}}}}} {{{{{SITE}}}}}")],
    )
