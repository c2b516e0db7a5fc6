"""Recording rules: expensive queries of the dashboards, evaluated once a minute."""

from __future__ import annotations

from grafana.names import (
    LEAK_HOLDER,
    LEAK_KIND,
    LEAK_STATE,
    LEAK_WHERE,
    LIMIT_KIND,
    NOT_CHILDREN,
    REASON,
    SITE,
    SLOT,
    TASK,
    WORKER,
    series,
)
from grafana.promql import appeared, left_behind, net
from grafana.rules import Group, Recording
from otel_celery_memory import conventions as c
from otel_celery_memory.leaks.verdict import State

ONE_LEAK = f"job, {TASK}, {LEAK_KIND}, {LEAK_WHERE}"
"""The labels that tell one leak of a service from another."""
OF_A_LEAK = f"{ONE_LEAK}, {SITE}, {LEAK_HOLDER}"
_LEAKING = f'{LEAK_STATE}="{State.LEAKING.value}"'
RETAINED_BY_TASK = Recording(
    "job_task:celery_task_memory_retained_bytes:net_increase30m",
    left_behind(f"job, {TASK}", "30m"),
)
RUNS_BY_TASK = Recording(
    "job_task:celery_task_memory_retained:runs30m",
    f"sum by (job, {TASK}) (increase({series(c.MEASURED)}[30m]))",
)
RETAINED_BY_WORKER = Recording(
    "job_instance:celery_task_memory_retained_bytes:net_increase30m",
    net(c.RSS_RETAINED, WORKER, "30m"),
)
MEMORY_BY_WORKER = Recording(
    "job_instance:celery_worker_memory_proportional_bytes:sum",
    # If smaps cannot be read, RSS, which counts shared pages once for each process.
    f"sum by ({WORKER}) ({series(c.MEMORY_PROPORTIONAL)})\n"
    f"or sum by ({WORKER}) ({series(c.MEMORY)})",
)


LIMIT_USED = Recording(
    "job_instance_kind:celery_worker_memory_limit:used_ratio",
    # Without max_memory_per_child: a child that comes near it is recycled, which is normal.
    f"max by ({WORKER}, {LIMIT_KIND}) (\n"
    f'  {series(c.LIMIT_UTILIZATION)}{{{LIMIT_KIND}!="{c.LIMIT_MAX_MEMORY}"}}\n)',
)
EXITS = Recording(
    "job_instance_reason:celery_worker_process_exits:increase10m",
    f"sum by ({WORKER}, {REASON}) (\n{appeared(series(c.PROCESS_EXITS), '10m')}\n)",
)
_MEMORY_OF_CHILDREN = f'{series(c.MEMORY)}{{{SLOT}!~"{NOT_CHILDREN}"}}'
CHILDREN = Recording(
    "job_instance:celery_worker_children:count",
    f"count by ({WORKER}) ({_MEMORY_OF_CHILDREN})",
)
LEAKING = Recording(
    "job_leak:celery_memory_leak_rate_bytes:leaking",
    # 0 where the kind is not counted in bytes, or the rate is not known by run. By what tells leaks
    # apart and what a person wants to read, but not by worker: all run the same code.
    f"max by ({OF_A_LEAK}) ({series(c.LEAK_RATE_LEVEL)}{{{_LEAKING}}})\n"
    f"or 0 * max by ({OF_A_LEAK}) ({series(c.LEAK_ACTIVE)}{{{_LEAKING}}})",
)

GROUPS = (
    Group(
        "celery_memory_fleet",
        "1m",
        (
            RETAINED_BY_TASK,
            RUNS_BY_TASK,
            RETAINED_BY_WORKER,
            MEMORY_BY_WORKER,
            LIMIT_USED,
            EXITS,
            CHILDREN,
            LEAKING,
        ),
    ),
)
