"""What a metric or an attribute of ours is called in Prometheus and in Loki.

The rules are those of OpenTelemetry's mapping to Prometheus with suffixes, which the Collector's
exporters and Prometheus's own OTLP receiver share; tests/stack holds them against both.
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
    """An attribute as a label of Prometheus, or as structured metadata of Loki."""
    return name.replace(".", "_").replace("-", "_")


def series(metric: c.Metric) -> str:
    """A metric's name in Prometheus; a histogram's without ``_bucket``, ``_sum``, ``_count``.

    `KeyError` for a unit that is not known here: its name would be guessed.
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
DIRECTION = label(c.DIRECTION)
LIMIT_KIND = label(c.LIMIT_KIND)
SITE = label(c.SITE_NAME)
WINDOW = label(c.SITE_WINDOW)

WORKER = "job, instance"
"""What tells workers apart: the service, and the worker's node name."""

NOT_CHILDREN = "main|reporter"
"""Slots that are not places in the pool."""
