"""The Fleet dashboard: all workers on one page, worst first."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build

from grafana import ids
from grafana import recordings as r
from grafana.event_queries import Count, Events, OfTask
from grafana.frame import INSTANCE, JOB, link_to, page
from grafana.leaks import leaks
from grafana.names import LIMIT_KIND, REASON, TASK, series
from grafana.panels import Panel, Query, Question, counted, events, over_time, rows
from grafana.promql import left_behind
from grafana.stores import EventStore
from otel_celery_memory import conventions as c

_RULES = "The series comes from this project's recording rules: are they loaded?"
_ALARMING = tuple(event.name for event in c.EVENTS if event.severity != "INFO")
_LOSSES = (c.FRAMES_DROPPED, c.REPORTER_RESTARTS)


def fleet(store: EventStore) -> build.Dashboard:
    """Leaks, tasks, workers and limits, ends of processes, and whether the telemetry arrives."""
    return page(
        store,
        ids.FLEET,
        "Celery memory / Fleet",
        "What leaks, who is near a limit, how processes end.",
        [
            *leaks(
                (ids.FLEET_LEAKS, ids.FLEET_EXHAUSTION, ids.FLEET_LEAK_RATES),
                INSTANCE,
                [("Show this task", link_to(ids.TASK_PAGE, "task", "${__value.raw}"))],
            ),
            _tasks(),
            _limits(),
            _growth_by_task(),
            _growth_by_worker(),
            _exits(),
            _memory(),
            _alarms(store),
            _losses_by_task(store),
            _repeated(),
            _self(),
            _collector(),
            _tracing(),
        ],
    )


def _tasks() -> Panel:
    recorded = r.RETAINED_BY_TASK.name
    per_run = f"{recorded}{{{JOB}}} / ({r.RUNS_BY_TASK.name}{{{JOB}}} > 0)"
    return rows(
        Question(
            ids.FLEET_TASKS,
            "Which task retains most?",
            "What runs of a task left behind in the last 30 minutes by the allocators' counters, "
            "less what was freed: the mean of the sampled runs, times all runs. A leak grows with "
            "every run.",
            "bytes",
            f"No task finished in the last 30 minutes. {_RULES}",
        ),
        # No topk: each column would have different rows.
        {
            "Net in 30 min": (Query(f"sum by ({TASK}) ({recorded}{{{JOB}}})"), "bytes"),
            "A run": (Query(f"max by ({TASK}) ({per_run})"), "bytes"),
            "Runs": (Query(f"sum by ({TASK}) ({r.RUNS_BY_TASK.name}{{{JOB}}})"), "short"),
        },
        keys={TASK: "Task"},
        links={TASK: [("Show this task", link_to(ids.TASK_PAGE, "task", "${__value.raw}"))]},
    )


def _limits() -> Panel:
    ratio = f"{r.LIMIT_USED.name}{{{INSTANCE}}}"
    return over_time(
        Question(
            ids.FLEET_LIMITS,
            "Who is near a limit?",
            "Share of the nearest limit, as in the worker's own pressure events: of the cgroup "
            "without the page cache that the kernel reclaims first, of the address space of one "
            "process, or of the host. At 90 % an alert fires.",
            "percentunit",
            f"No worker has a limit. {_RULES}",
        ),
        [
            Query(
                f"topk(10, max by (job, instance, {LIMIT_KIND}) ({ratio}))",
                f"{{{{instance}}}} ({{{{{LIMIT_KIND}}}}})",
            )
        ],
    )


def _growth_by_task() -> Panel:
    growth = left_behind(TASK, "$__rate_interval", INSTANCE, "rate")
    return over_time(
        Question(
            ids.FLEET_GROWTH_BY_TASK,
            "Which task grows?",
            "What runs of a task leave behind a second by the allocators' counters, net. A line "
            "above zero for hours is a leak. Peaks that go down again are caches.",
            "binBps",
            "No task finished in this time.",
        ),
        [Query(f"topk(10,\n{growth}\n)", f"{{{{{TASK}}}}}")],
    )


def _growth_by_worker() -> Panel:
    return over_time(
        Question(
            ids.FLEET_GROWTH_BY_WORKER,
            "Which worker grows?",
            "How RSS of its processes changed between runs in the last 30 minutes, net. If one "
            "worker "
            "grows, check its queue and its machine; if all grow, check the last release.",
            "bytes",
            f"No task finished in this time. {_RULES}",
        ),
        [Query(f"topk(10, {r.RETAINED_BY_WORKER.name}{{{INSTANCE}}})", "{{instance}}")],
    )


def _exits() -> Panel:
    ends = f"increase({series(c.PROCESS_EXITS)}{{{INSTANCE}}}[$__rate_interval])"
    return over_time(
        Question(
            ids.FLEET_EXITS,
            "How do processes end?",
            "Processes that ended, by reason. max_tasks and max_memory are recycling; killed, "
            "exited, crashed and oom_kill are losses. The graph does not show the first end of a "
            "reason.",
            "short",
            "No process ended in this time, or each reason for the first time.",
        ),
        [Query(f"sum by ({REASON}) ({ends})", f"{{{{{REASON}}}}}")],
        bars=True,
        stacked=True,
    )


def _memory() -> Panel:
    return over_time(
        Question(
            ids.FLEET_MEMORY,
            "How much memory does each worker hold?",
            "Memory of all its processes. A page that several share is divided among them.",
            "bytes",
            f"No worker sent memory in this time. {_RULES}",
        ),
        [Query(f"topk(20, {r.MEMORY_BY_WORKER.name}{{{INSTANCE}}})", "{{instance}}")],
    )


def _alarms(store: EventStore) -> Panel:
    return events(
        Question(
            ids.FLEET_ALARMS,
            "What happened?",
            "Verdicts on leaks, lost processes and memory pressure, newest first.",
            "none",
            "No verdict changed, no process was lost and no limit was near in this time.",
        ),
        store,
        Events(_ALARMING),
    )


def _losses_by_task(store: EventStore) -> Panel:
    return counted(
        Question(
            ids.FLEET_LOSSES_BY_TASK,
            "Which tasks lose processes?",
            "Processes that were lost while they ran a task, by task, from the events. If it is "
            "one task, check what it does; if it is all, check the limits of the machine.",
            "short",
            "No process was lost while it ran a task.",
        ),
        store,
        Count(Events((c.PROCESS_LOST.name,), OfTask.SOME), c.TASK_NAME),
    )


def _repeated() -> Panel:
    again = f"increase({series(c.EXITS_REPEATED)}{{{INSTANCE}}}[$__rate_interval])"
    return over_time(
        Question(
            ids.FLEET_REPEATED,
            "Which messages kill again and again?",
            "Processes that a message killed after it had killed one, by task. Such a message is "
            "delivered again for as long as nobody removes it. The event of each loss has its id.",
            "short",
            "No message killed a second process, or each task for the first time.",
        ),
        [Query(f"sum by ({TASK}) ({again})", f"{{{{{TASK}}}}}")],
        bars=True,
        stacked=True,
    )


def _self() -> Panel:
    return over_time(
        Question(
            ids.FLEET_DROPPED,
            "Is anything measured lost?",
            "Dropped records, restarted reporters, and parts of the instrumentation that failed "
            "and are switched off. Zero is normal.",
            "short",
            "No worker sent telemetry in this time.",
        ),
        [
            Query(
                f"sum by (instance) (increase({series(metric)}{{{INSTANCE}}}[$__rate_interval]))",
                f"{metric.name.removeprefix('celery.memory.')} {{{{instance}}}}",
            )
            for metric in _LOSSES
        ]
        + [
            Query(
                f"sum({series(c.PARTS_SWITCHED_OFF)}{{{INSTANCE}}}) or vector(0)",
                "parts switched off",
            )
        ],
    )


def _tracing() -> Panel:
    aborted = f"increase({series(c.TRACING_ABORTED)}{{{INSTANCE}}}[$__rate_interval])"
    return over_time(
        Question(
            ids.FLEET_TRACING,
            "What does tracing cost?",
            "Share of the tasks' time that tracing and samples take, at most; and runs whose "
            "tracing was stopped because it would have cost too much.",
            "percentunit",
            "No worker traces within a budget.",
        ),
        [
            Query(
                f"max by (instance) ({series(c.TRACING_OVERHEAD)}{{{INSTANCE}}})", "{{instance}}"
            ),
            Query(f"sum({aborted}) or vector(0)", "runs stopped"),
        ],
        right={"runs stopped": "short"},
    )


def _collector() -> Panel:
    def total(stem: str) -> str:
        return " + ".join(
            f"(sum(rate(otelcol_{stem}_{signal}_total[$__rate_interval])) or vector(0))"
            for signal in ("metric_points", "log_records", "spans")
        )

    return over_time(
        Question(
            ids.FLEET_COLLECTOR,
            "Does the Collector lose telemetry?",
            "Items a second: received, refused, and not sent.",
            "cps",
            "The Collector's own metrics are not scraped.",
        ),
        [
            Query(total("receiver_accepted"), "accepted"),
            Query(total("receiver_refused"), "refused"),
            Query(total("exporter_send_failed"), "not sent"),
            Query(total("exporter_enqueue_failed"), "queue full"),
        ],
    )
