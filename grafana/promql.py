"""Pieces of PromQL that dashboards and rules share."""

from __future__ import annotations

from grafana.names import DIRECTION, series
from otel_celery_memory import conventions as c


def net(
    metric: c.Metric, by: str, window: str, matchers: str = "", function: str = "increase"
) -> str:
    """Growth less shrinkage, of a histogram with a direction, over a window.

    A task that never shrank has no such series, hence the zero.
    """

    def total(*chosen: str) -> str:
        selector = _selector(f"{series(metric)}_sum", *chosen, matchers)
        return f"sum by ({by}) ({function}({selector}[{window}]))"

    grown, shrunk = (total(f'{DIRECTION}="{each}"') for each in (c.GROW, c.SHRINK))
    return f"({grown} or 0 * {total()})\n- ({shrunk} or 0 * {total()})"


def runs(metric: c.Metric, by: str, window: str) -> str:
    """Number of runs that a histogram recorded over a window."""
    return f"sum by ({by}) (increase({series(metric)}_count[{window}]))"


def left_behind(by: str, window: str, matchers: str = "", function: str = "increase") -> str:
    """What all runs of each task left behind: the mean of those that were sampled, times all."""
    warm = f'{DIRECTION}!="{c.WARM_UP}"'
    both = ", ".join(filter(None, (matchers, warm)))
    sampled = f"sum by ({by}) ({function}({series(c.HEAP_RETAINED)}_count{{{both}}}[{window}]))"
    braces = f"{{{matchers}}}" if matchers else ""
    all_runs = f"sum by ({by}) ({function}({series(c.MEASURED)}{braces}[{window}]))"
    mean = f"(\n{net(c.HEAP_RETAINED, by, window, matchers, function)}\n) / ({sampled} > 0)"
    return f"{mean}\n* {all_runs}"


def appeared(selector: str, window: str) -> str:
    """Growth of a counter over a window, its first appearance included.

    A counter by reason appears with its first event, at 1, and `increase` does not count that. It
    may disappear soon, if the worker ends. A series that was there within an hour and was only
    missing for a while is not new.
    """
    return (
        f"(increase({selector}[{window}]) > 0)\n"
        f"or (max_over_time({selector}[{window}]) "
        f"unless last_over_time({selector}[1h] offset {window}))"
    )


def last_seen(selector: str, by: str, window: str) -> str:
    """Time of the last sample within a window, in Unix seconds; the series may be gone by now.

    The subquery steps by 30 seconds, which is less than the Collector keeps a series.
    """
    return f"max by ({by}) (max_over_time(timestamp({selector})[{window}:30s]))"


def _selector(name: str, *matchers: str) -> str:
    chosen = ", ".join(filter(None, matchers))
    return f"{name}{{{chosen}}}" if chosen else name
