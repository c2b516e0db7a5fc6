"""The alerts, with the reasons for their thresholds. Runbooks: docs/site/runbooks/."""

from __future__ import annotations

from grafana import ids
from grafana import recordings as r
from grafana.names import LEAK_STATE, REASON, SITE, SLOT, TASK, series
from grafana.names import WORKER as BY_WORKER
from grafana.promql import appeared, last_seen
from grafana.rules import Alert, Group
from otel_celery_memory import conventions as c
from otel_celery_memory.leaks.verdict import State

_RATIO = r.LIMIT_USED.name
_EXITS = series(c.PROCESS_EXITS)
_MAIN = f'{SLOT}="main"'
_LOSSES = f'{_EXITS}{{{REASON}=~"oom_kill|killed|exited|crashed"}}'
_MEMORY_OF_MAIN = f"{series(c.MEMORY)}{{{_MAIN}}}"

_LEAKING = f'{LEAK_STATE}="{State.LEAKING.value}"'
_ACTIVE = series(c.LEAK_ACTIVE)
_WHO = (
    "{{ if $labels.celery_task_name }}{{ $labels.celery_task_name }}{{ else }}"
    "Something of no single task ({{ $labels.celery_memory_leak_where }}){{ end }}"
)
_LEAKS_WHERE = (
    " leaks{{ if $labels.celery_memory_site_name }} at {{ $labels.celery_memory_site_name }}"
    "{{ end }} ({{ $labels.celery_memory_leak_kind }})"
)
_HELD = (
    "{{ if $labels.celery_memory_leak_holder }} It is held by "
    "{{ $labels.celery_memory_leak_holder }}.{{ end }}"
)


def _queried(query: str, labels: str, text: str) -> str:
    """A sentence with what a query says, for Prometheus; ``labels`` fill the query's places."""
    names = " ".join(f"$labels.{name}" for name in labels.split())
    return f"{{{{ range printf `{query}` {names} | query }}}} {text}{{{{ end }}}}"


_FIRST_TO_END = (
    f"min by (job) ({series(c.EXHAUSTION)}{{job=%q}} and on ({BY_WORKER}) "
    f"{_ACTIVE}{{job=%q, {TASK}=%q, {_LEAKING}}})"
)
LEAKS = Alert(
    "CeleryTaskLeaks",
    "warning",
    # A verdict is no threshold of ours: it says `leaking` once growth went on beyond what caches
    # and warm-up explain. A worker that does not know the place yet adds no alert to those that do.
    f"""\
{r.LEAKING.name}{{{SITE}!=""}}
or on ({r.ONE_LEAK}) {r.LEAKING.name}""",
    "0m",
    _WHO + _LEAKS_WHERE,
    f"{_WHO} in {{{{ $labels.job }}}}{_LEAKS_WHERE}"
    "{{ if gt $value 0.0 }}, {{ $value | humanize1024 }}B a run{{ end }}."
    f"{_HELD} The event celery.memory.leak says it in words, and what to do.",
    ids.TASK_LEAKS,
    detail=_queried(
        _FIRST_TO_END,
        "job job celery_task_name",
        "A worker reaches its limit in about {{ .Value | humanizeDuration }}.",
    ),
    # A verdict that is not sent for a moment has not ended.
    keep_firing_for="5m",
)
_OF_WORKER = f"instance, {r.OF_A_LEAK}"
_RATE_THERE = (
    f"max by (job) ({series(c.LEAK_RATE_LEVEL)}{{job=%q, instance=%q, {TASK}=%q, {_LEAKING}}})"
)
LEAK_AT_LIMIT = Alert(
    "CeleryLeakNearLimit",
    "critical",
    # By worker, as one may be started again while others have time.
    f"""\
0 * max by ({_OF_WORKER}) ({_ACTIVE}{{{_LEAKING}}})
  + on ({BY_WORKER}) group_left () min by ({BY_WORKER}) ({series(c.EXHAUSTION)})
  < 3600""",
    "2m",
    "{{ $labels.instance }} runs out of memory: " + _WHO + _LEAKS_WHERE,
    f"{_WHO}{_LEAKS_WHERE}.{_HELD} Worker {{{{ $labels.instance }}}} ({{{{ $labels.job }}}}) "
    "reaches its limit in about {{ $value | humanizeDuration }}.",
    ids.WORKER_LIMITS,
    detail=_queried(
        _RATE_THERE,
        "job instance celery_task_name",
        "Each run leaves {{ .Value | humanize1024 }}B behind.",
    ),
)
EXHAUSTION = Alert(
    "CeleryMemoryExhaustion",
    "critical",
    # All three must hold: a level alone pages for caches, a forecast alone for warm-up, and a slope
    # alone for any growth. Half an hour of history is needed, as a line through less is noise.
    f"""\
{_RATIO} > 0.6
and predict_linear({_RATIO}[1h], 4 * 3600) > 1
and deriv({_RATIO}[30m]) > 0
and {_RATIO} offset 30m""",
    "10m",
    "{{ $labels.instance }} runs out of memory within four hours",
    "The memory of worker {{ $labels.instance }} ({{ $labels.job }}) is at "
    "{{ $value | humanizePercentage }} of its limit of kind {{ $labels.celery_memory_limit_kind }} "
    "and reaches it within four hours if it keeps growing as in the last hour.",
    ids.WORKER_LIMITS,
)
PRESSURE = Alert(
    "CeleryMemoryPressure",
    "critical",
    f"{_RATIO} > 0.9",
    "2m",
    "{{ $labels.instance }} has used 90 % of its memory limit",
    "The memory of worker {{ $labels.instance }} ({{ $labels.job }}) is at "
    "{{ $value | humanizePercentage }} of its limit of kind "
    "{{ $labels.celery_memory_limit_kind }}.",
    ids.WORKER_LIMITS,
)
LOST = Alert(
    "CeleryProcessLost",
    "critical",
    # `appeared` takes a series that was there an hour ago for one with a gap. It is a new loss if
    # the worker sent memory metrics meanwhile: each main process that is killed leaves a count of
    # 1 for minutes, from a reporter of its own.
    f"sum by ({BY_WORKER}, {REASON}) (\n"
    + appeared(_LOSSES, "5m")
    + f"\nor ({_LOSSES} unless {_LOSSES} offset 5m "
    + f"and on ({BY_WORKER}) {_MEMORY_OF_MAIN} offset 5m)"
    + "\n) > 0",
    "0m",
    "{{ $labels.instance }} lost a process: {{ $labels.celery_worker_exit_reason }}",
    "Worker {{ $labels.instance }} ({{ $labels.job }}) lost {{ $value | humanize }} processes in "
    "five minutes, for the reason {{ $labels.celery_worker_exit_reason }}. The event "
    "celery.worker.process_lost names the task that each was running.",
    ids.WORKER_LOST,
    keep_firing_for="5m",
)
KILLS_AGAIN = Alert(
    "CeleryMessageKillsAgain",
    "critical",
    # The second process of one message may be chance; with the third it is not, and it goes on for
    # as long as the broker delivers the message. The count is of processes after the first.
    f"sum by ({BY_WORKER}, {TASK}) (\n" + appeared(series(c.EXITS_REPEATED), "15m") + "\n) > 1.5",
    "0m",
    "A message of {{ $labels.celery_task_name }} kills process after process",
    "In 15 minutes worker {{ $labels.instance }} ({{ $labels.job }}) lost {{ $value | humanize }} "
    "processes in runs of {{ $labels.celery_task_name }} to messages that had killed before. The "
    "event celery.worker.process_lost has the message's id and celery.worker.exit.repeated.",
    ids.FLEET_REPEATED,
    keep_firing_for="5m",
)
RECYCLING = Alert(
    "CeleryRecyclingStorm",
    "warning",
    # Above one recycling a minute for each child, a worker mostly starts processes.
    f"""\
sum by ({BY_WORKER}) ({r.EXITS.name}{{{REASON}=~"max_tasks|max_memory"}})
  / {r.CHILDREN.name} > 10""",
    "5m",
    "{{ $labels.instance }} recycles its processes all the time",
    "Each child of worker {{ $labels.instance }} ({{ $labels.job }}) was recycled "
    "{{ $value | humanize }} times in ten minutes.",
    ids.WORKER_EXITS,
)
DESCRIPTORS = Alert(
    "CeleryDescriptorsNearLimit",
    "warning",
    f"max by ({BY_WORKER}, {SLOT}) ({series(c.OPEN_FILES)} / {series(c.OPEN_FILES_LIMIT)}) > 0.8",
    "5m",
    "{{ $labels.instance }} runs out of file descriptors",
    "Process {{ $labels.celery_worker_slot }} of worker {{ $labels.instance }} "
    "({{ $labels.job }}) has {{ $value | humanizePercentage }} of the descriptors it may have.",
    ids.WORKER_DESCRIPTORS,
)
LEFT_BEHIND = Alert(
    "CeleryProcessesLeftBehind",
    "warning",
    # A browser or an interpreter that a run forgot has as much; what a run starts on purpose and
    # leaves to end by itself is over in five minutes.
    f"sum by ({BY_WORKER}, {TASK}) ({series(c.DESCENDANTS_LEFT_SIZE)}) > {64 << 20}",
    "5m",
    "{{ $labels.celery_task_name }} leaves processes behind",
    "Processes that runs of {{ $labels.celery_task_name }} started in worker "
    "{{ $labels.instance }} ({{ $labels.job }}) still run though these runs have ended, and hold "
    "{{ $value | humanize1024 }}B. The event celery.worker.descendants_left names the largest.",
    ids.WORKER_DESCENDANTS,
)
SILENT = Alert(
    "CeleryMemoryReporterSilent",
    "warning",
    # No alert after a goodbye: a shutdown of slot `main` that is not older than the last memory
    # metric. An older shutdown is of an earlier worker of that name.
    f"""\
max by ({BY_WORKER}) (last_over_time({_MEMORY_OF_MAIN}[1h]))
unless max by ({BY_WORKER}) ({_MEMORY_OF_MAIN})
unless (
{last_seen(f'{_EXITS}{{{_MAIN}, {REASON}="shutdown"}}', BY_WORKER, "1h")}
>= {last_seen(_MEMORY_OF_MAIN, BY_WORKER, "1h")}
)""",
    "5m",
    "{{ $labels.instance }} stopped sending telemetry",
    "Worker {{ $labels.instance }} ({{ $labels.job }}) sends no memory telemetry any more, and did "
    "not shut down.",
    ids.FLEET_MEMORY,
)
DROPPED = Alert(
    "CeleryMemoryFramesDropped",
    "warning",
    f"sum by ({BY_WORKER}) (increase({series(c.FRAMES_DROPPED)}[10m])) > 0",
    "0m",
    "{{ $labels.instance }} drops measurements",
    "In ten minutes {{ $value | humanize }} records of worker {{ $labels.instance }} "
    "({{ $labels.job }}) did not reach its reporter.",
    ids.FLEET_DROPPED,
    keep_firing_for="5m",
)

_COLLECTORS = 'up{job=~"collector|otelcol"}'
_UPTIME = "otelcol_process_uptime_seconds_total"
DOWN = Alert(
    "CeleryCollectorDown",
    "critical",
    # A target that does not answer. Or all Collectors of a job, as targets may vanish with their
    # machine and pushed metrics have no target; one of many that is gone for good raises no alert.
    f"""\
max by (job, instance) ({_COLLECTORS}) == 0
or label_replace(
  max by (job) (last_over_time({_UPTIME}[1h])) unless max by (job) ({_UPTIME})
    unless max by (job) ({_COLLECTORS}),
  "instance", "all", "", "")""",
    "2m",
    "Collector {{ $labels.instance }} of {{ $labels.job }} is down",
    "Prometheus has had no metrics of Collector {{ $labels.instance }} of job {{ $labels.job }} "
    "for two minutes. Telemetry that workers send through it waits or is lost, and alerts about "
    "these workers do not work.",
    ids.FLEET_COLLECTOR,
    narrowed=False,
)


def _collector(*metrics: str) -> str:
    """Growth of a Collector's counters, by Collector, signal and component."""
    return "\nor ".join(
        f"label_replace(sum by (job, instance, {by}) (increase({name}[5m])), "
        f'"counter", "{name}", "", "") > 0'
        for name, by in (each.split("/") for each in metrics)
    )


SIGNALS = ("metric_points", "log_records", "spans")
REFUSING = Alert(
    "CeleryCollectorRefusing",
    "warning",
    _collector(*(f"otelcol_receiver_refused_{each}_total/receiver" for each in SIGNALS)),
    "5m",
    "Collector {{ $labels.instance }} refuses telemetry",
    "Collector {{ $labels.instance }} refused {{ $value | humanize }} items in five minutes "
    "({{ $labels.counter }}). Clients retry for a while, and then drop them.",
    ids.FLEET_COLLECTOR,
    narrowed=False,
)
FAILING = Alert(
    "CeleryCollectorFailingToSend",
    "critical",
    _collector(
        *(f"otelcol_exporter_send_failed_{each}_total/exporter" for each in SIGNALS),
        *(f"otelcol_exporter_enqueue_failed_{each}_total/exporter" for each in SIGNALS),
    ),
    "5m",
    "Collector {{ $labels.instance }} cannot send to {{ $labels.exporter }}",
    "Collector {{ $labels.instance }} could not send {{ $value | humanize }} items to "
    "{{ $labels.exporter }} in five minutes ({{ $labels.counter }}).",
    ids.FLEET_COLLECTOR,
    narrowed=False,
)
STUCK = Alert(
    "CeleryCollectorStuck",
    "critical",
    # While the exporter retries, for half an hour or until its queue is full, nothing has failed.
    "\nunless ".join(
        (
            "max by (job, instance, exporter) (min_over_time(otelcol_exporter_queue_size[5m])) > 0",
            *(
                "sum by (job, instance, exporter) "
                f"(increase(otelcol_exporter_sent_{each}_total[5m])) > 0"
                for each in SIGNALS
            ),
        )
    ),
    "2m",
    "Collector {{ $labels.instance }} gets nothing through to {{ $labels.exporter }}",
    "At least {{ $value | humanize }} items wait in Collector {{ $labels.instance }} for "
    "{{ $labels.exporter }}, and none was sent in five minutes.",
    ids.FLEET_COLLECTOR,
    narrowed=False,
)

WORKERS = (
    *(LEAKS, LEAK_AT_LIMIT, EXHAUSTION, PRESSURE, LOST, KILLS_AGAIN, RECYCLING),
    *(DESCRIPTORS, LEFT_BEHIND),
)
TELEMETRY = (SILENT, DROPPED, DOWN, REFUSING, FAILING, STUCK)
ALERTS = WORKERS + TELEMETRY
GROUPS = (
    Group("celery_memory", "30s", WORKERS),
    Group("celery_memory_telemetry", "30s", TELEMETRY),
)
