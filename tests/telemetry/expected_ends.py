"""What comes of the ends of the history's processes and of their successors: metrics."""

from __future__ import annotations

from typing import Any

from otel_celery_memory import conventions as c
from tests.telemetry.expected import FIRST_SLOT, MAIN_SLOT, SECOND_SLOT, counter, histogram
from tests.telemetry.payload import Plain, distribution

MAX_TASKS, OOM_KILL = ({"celery.worker.exit.reason": why} for why in ("max_tasks", "oom_kill"))

EXPECTED_EXITS = counter(
    "{process}",
    ({"celery.worker.exit.reason": "max_tasks", **FIRST_SLOT}, 1),
    ({"celery.worker.exit.reason": "oom_kill", **SECOND_SLOT}, 1),
    ({"celery.worker.exit.reason": "shutdown", **MAIN_SLOT}, 1),
)


def of_two(metric: c.Metric, max_tasks: float, oom_kill: float) -> dict[str, Any]:
    return {
        metric.name: histogram(
            distribution(MAX_TASKS, [max_tasks], bounds=metric.bounds),
            distribution(OOM_KILL, [oom_kill], bounds=metric.bounds),
            unit=metric.unit,
        )
    }


EXPECTED_AT_ENDS: dict[str, Plain] = {
    "celery.worker.process.exits": EXPECTED_EXITS,
    **of_two(c.PROCESS_TASKS, 2, 2),
    **of_two(c.PROCESS_LIFETIME, 3.0, 5.0),
    **of_two(c.RECYCLING_GAP, 4.0, 1.0),
    **of_two(c.RECYCLING_FREED, 16_000_000, 20_000_000),
}

EXPECTED_REPEATED_EXITS: dict[str, Plain] = {
    "celery.worker.process.exits.repeated": counter(
        "{process}", ({"celery.task.name": "app.die"}, 1)
    )
}
"""What comes of a message that kills a second process."""
