"""Names of our metrics and attributes in Prometheus and in Loki.

They follow OpenTelemetry's mapping to Prometheus with suffixes, as the Collector's exporters and
Prometheus's own OTLP receiver do; tests/stack checks both.
"""

from __future__ import annotations

from otel_celery_memory import conventions as c

_UNIT_SUFFIXES = {
    "By": "_bytes",
    "s": "_seconds",
    "By/{task}": "_bytes",
    "By/min": "_bytes_per_min",
}
_GAUGES = ("Gauge", "UpDownCounter")


def label(name: str) -> str:
    """An attribute's name as a label in Prometheus, or as structured metadata in Loki."""
    return name.replace(".", "_").replace("-", "_")


def series(metric: c.Metric) -> str:
    """A metric's name in Prometheus; a histogram's without ``_bucket``, ``_sum``, ``_count``.

    Raises `KeyError` for a unit without a known suffix.
    """
    return label(metric.name) + _suffix(metric) + ("_total" if metric.kind == "Counter" else "")


def _suffix(metric: c.Metric) -> str:
    if metric.unit.startswith("{"):
        return ""
    if metric.unit == "1":
        return "_ratio" if metric.kind in _GAUGES else ""
    return _UNIT_SUFFIXES[metric.unit]


TASK = label(c.TASK_NAME)
STATE = label(c.TASK_STATE)
EXCLUSIVE = label(c.EXCLUSIVE)
SLOT = label(c.SLOT)
REASON = label(c.EXIT_REASON)
MESSAGE_STATE = label(c.MESSAGE_STATE)
DIRECTION = label(c.DIRECTION)
LIMIT_KIND = label(c.LIMIT_KIND)
GENERATION = label(c.GC_GENERATION)
SITE = label(c.SITE_NAME)
WINDOW = label(c.SITE_WINDOW)
LEAK_KIND = label(c.LEAK_KIND)
LEAK_WHERE = label(c.LEAK_WHERE)
LEAK_STATE = label(c.LEAK_STATE)
LEAK_HOLDER = label(c.LEAK_HOLDER)

WORKER = "job, instance"
"""The labels that identify a worker: the service, and the worker's node name."""

NOT_CHILDREN = "main|reporter"
"""Slots that are no children of the pool."""
