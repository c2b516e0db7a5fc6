"""Recording rules: expensive queries of the dashboards, evaluated once a minute."""

from __future__ import annotations

from grafana.names import LIMIT_KIND, NOT_CHILDREN, REASON, SLOT, TASK, WORKER, series
from grafana.promql import appeared, left_behind, net
from grafana.rules import Group, Recording
from otel_celery_memory import conventions as c

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
BEGUN = Recording(
    "job_instance:celery_worker_children:begun",
    # Ends of processes, each of which has a successor, and slots that are new. After a deployment
    # the last child may have its first run of a task long after the others.
    f"sum by ({WORKER}) (\n"
    + appeared(f'{series(c.PROCESS_EXITS)}{{{REASON}!="shutdown"}}', "30m")
    + "\nor "
    + appeared(f'{series(c.PROCESS_EXITS)}{{{REASON}="shutdown"}}', "1h")
    + f"\nor 0 * ({_MEMORY_OF_CHILDREN} "
    f"unless last_over_time({_MEMORY_OF_CHILDREN}[5m] offset 1h)) + 1\n)",
)
BEGUN_BY_TASK = Recording(
    "job_task:celery_worker_children:begun",
    # Only of workers that run the task: recycling elsewhere does not explain its growth.
    f"sum by (job, {TASK}) (\n{BEGUN.name} * on ({WORKER}) group_right ()\n"
    f"group by ({WORKER}, {TASK}) ({series(c.MEASURED)})\n)",
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
            BEGUN,
            BEGUN_BY_TASK,
        ),
    ),
)
