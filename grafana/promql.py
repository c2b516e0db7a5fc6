"""Pieces of PromQL that dashboards and rules share."""

from __future__ import annotations

from grafana.names import DIRECTION, series
from otel_celery_memory import conventions as c


def net(
    metric: c.Metric, by: str, window: str, matchers: str = "", function: str = "increase"
) -> str:
    """What grew less what shrank of a histogram with a direction, over a window.

    What never shrank has no series for it, hence the zero.
    """

    def total(*chosen: str) -> str:
        selector = _selector(f"{series(metric)}_sum", *chosen, matchers)
        return f"sum by ({by}) ({function}({selector}[{window}]))"

    grown, shrunk = (total(f'{DIRECTION}="{each}"') for each in (c.GROW, c.SHRINK))
    return f"({grown} or 0 * {total()})\n- ({shrunk} or 0 * {total()})"


def runs(metric: c.Metric, by: str, window: str, matchers: str = "") -> str:
    """How many runs a histogram has taken in over a window."""
    selector = _selector(f"{series(metric)}_count", matchers)
    return f"sum by ({by}) (increase({selector}[{window}]))"


def appeared(selector: str, window: str, memory: str = "1h") -> str:
    """How much a counter has grown over a window, its first appearance included.

    A counter by reason begins to exist with the first event, at 1, which `increase` cannot see; it
    may be gone soon, with the worker whose last word it was. A series that was there within
    `memory` and was only missing for a while is not new.
    """
    return (
        f"(increase({selector}[{window}]) > 0)\n"
        f"or (max_over_time({selector}[{window}]) "
        f"unless last_over_time({selector}[{memory}] offset {window}))"
    )


def last_heard(selector: str, by: str, window: str) -> str:
    """When there was last a sample, in Unix seconds, of what may be gone since.

    Looked for every 30 seconds, which is less than the Collector keeps what is sent no more.
    """
    return f"max by ({by}) (max_over_time(timestamp({selector})[{window}:30s]))"


def _selector(name: str, *matchers: str) -> str:
    chosen = ", ".join(filter(None, matchers))
    return f"{name}{{{chosen}}}" if chosen else name
