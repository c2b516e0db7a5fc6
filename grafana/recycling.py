"""Panels about the cost and the benefit of recycling."""

from __future__ import annotations

from grafana import ids
from grafana.frame import INSTANCE
from grafana.names import REASON, series
from grafana.panels import Panel, Query, Question, over_time
from otel_celery_memory import conventions as c

_NOTHING = "No process was recycled in this time."


def recycling() -> list[Panel]:
    """One panel for each metric of recycling."""
    asked = (
        (
            c.RECYCLING_FREED,
            Question(
                ids.WORKER_RECYCLING_FREED,
                "How much memory does recycling free?",
                "Mean RSS of a process at its end less that of its successor at its start. Near "
                "zero, recycling costs more than it saves.",
                "bytes",
                _NOTHING,
            ),
        ),
        (
            c.RECYCLING_GAP,
            Question(
                ids.WORKER_RECYCLING_GAP,
                "How long is a slot of the pool empty?",
                "Mean time from a process's end until its successor is ready.",
                "s",
                _NOTHING,
            ),
        ),
        (
            c.PROCESS_TASKS,
            Question(
                ids.WORKER_PROCESS_TASKS,
                "How many tasks does a process run in its life?",
                "Mean number of tasks from start to end, by reason of the end.",
                "short",
                _NOTHING,
            ),
        ),
        (
            c.PROCESS_LIFETIME,
            Question(
                ids.WORKER_PROCESS_LIFETIME,
                "How long does a process live?",
                "Mean time from ready to end, by reason of the end.",
                "s",
                _NOTHING,
            ),
        ),
    )
    return [
        over_time(question, [Query(_mean(metric), f"{{{{{REASON}}}}}")])
        for metric, question in asked
    ]


def _mean(metric: c.Metric) -> str:
    total, count = (
        f"sum by ({REASON}) (rate({series(metric)}_{part}{{{INSTANCE}}}[$__rate_interval]))"
        for part in ("sum", "count")
    )
    return f"{total} / ({count} > 0)"
