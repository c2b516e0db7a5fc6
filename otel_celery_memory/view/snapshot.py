"""What is known at one moment, as JSON: the page shows this and nothing else. Pure.

Times are seconds since the epoch, sizes are bytes, ``null`` is what is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otel_celery_memory import conventions as c
from otel_celery_memory.leaks.verdict import State
from otel_celery_memory.view.capture_files import key_of
from otel_celery_memory.view.otlp import LoggedEvent, Sender
from otel_celery_memory.view.remote import Told
from otel_celery_memory.view.series import Series
from otel_celery_memory.view.source_lines import Source
from otel_celery_memory.view.store import Store, Worker
from otel_celery_memory.view.streams import Growth, Streams, slot_of, task_of
from otel_celery_memory.view.timeline import Item
from otel_celery_memory.view.verdicts import Verdict, verdict_of

Plain = dict[str, Any]
SourceOf = Callable[[str, int], Source | None]
"""The lines around a line of a file, if they can be read here."""

TASKS_SHOWN = 1_500
"""Of a worker; those that retain most come first."""
_SILENT_S, _SILENT_EXPORTS = 20.0, 3.0
"""A worker is silent after that time, or after so many of its exports are missing."""
_GROWTH_SHOWN = 20
"""Tasks of a worker whose growth is told over time."""
_DIGITS = 4
_STATES = (State.LEAKING.value, State.SUSPECTED.value, State.ENDED.value)
_OF_EACH_PROCESS = (c.LIMIT_AS, c.LIMIT_DATA, c.LIMIT_MAX_MEMORY)


@dataclass(frozen=True)
class Surroundings:
    """What the page says of the command itself."""

    endpoint: str
    """Where workers send."""
    app: str | None = None
    """The Celery app that can be asked for captures."""
    captures: bool = True
    """Whether files of captures may be read on this machine."""
    live: bool = True
    """Whether new snapshots follow; a saved page is of one moment."""
    grpc: str | None = None
    """Where workers may send over gRPC."""


def snapshot(
    store: Store, now_s: float, around: Surroundings, source_of: SourceOf = lambda *_: None
) -> Plain:
    """Everything that the page shows."""
    workers = list(store.workers.items())
    numbers = {sender: number for number, (sender, _) in enumerate(workers)}
    return {
        "version": c.VERSION,
        "now": now_s,
        "since": store.since_s,
        "endpoint": around.endpoint,
        "grpc": around.grpc,
        "app": around.app,
        "live": around.live,
        "left_out": store.left_out,
        "verdicts": [
            _verdict(each, numbers, store, source_of)
            for each in sorted(_all_verdicts(store, now_s), key=_importance)
            if each.worker in numbers
        ],
        "workers": [
            _worker(sender, worker, now_s, source_of, store.told.get(sender.node))
            | {"captures": captures_of(store, sender, around)}
            for sender, worker in workers
        ],
        "timeline": [
            _item(item, numbers)
            for item in sorted(store.timeline, key=lambda item: -item.time_s)
            if item.worker in numbers
        ],
    }


def _worker(
    sender: Sender, worker: Worker, now_s: float, source_of: SourceOf, told: Told | None
) -> Plain:
    streams = worker.streams
    tasks = _tasks(streams)
    return {
        "node": sender.node,
        "service": sender.service,
        "host": sender.host,
        "first_seen": worker.first_seen_s,
        "last_seen": worker.last_seen_s,
        "state": _state(worker, now_s),
        "two": worker.two_of_one_name(now_s),
        "runs": sum(streams.runs_by_task().values()),
        "dropped": streams.total(c.FRAMES_DROPPED.name),
        "reporter_restarts": streams.total(c.REPORTER_RESTARTS.name),
        "tracing_overhead": next(
            (each.value for each in streams.all(c.TRACING_OVERHEAD.name)), None
        ),
        "switched_off": [
            {"part": str(each.attributes.get(c.PART, "")), "slot": slot_of(each)}
            for each in streams.all(c.PARTS_SWITCHED_OFF.name)
            if each.value
        ],
        "limits": _limits(streams),
        "cgroup": next((each.value for each in streams.all(c.MEMORY_CGROUP.name)), None),
        "messages": {
            str(each.attributes.get(c.MESSAGE_STATE, "")): each.value
            for each in streams.all(c.MESSAGES.name)
        },
        "processes": _processes(streams, told.tasks if told else {}),
        "answers": told is not None,
        "tasks": tasks[:TASKS_SHOWN],
        "tasks_left_out": max(len(tasks) - TASKS_SHOWN, 0),
        "sites": [_site(worker.sites[rank], source_of) for rank in sorted(worker.sites)],
    }


def captures_of(store: Store, sender: Sender, around: Surroundings) -> list[Plain]:
    """The captures of a worker, newest first: what it answered, and what its events tell.

    ``key`` names the file of one that may be asked for.
    """
    told = store.told.get(sender.node)
    rows = [dict(each) for each in told.captures] if told else []
    by_file = {row["file"]: row for row in rows if row.get("file")}
    for file, event in reversed(store.workers[sender].captures.items()):
        if file not in by_file:
            of = event.attributes
            by_file[file] = {
                "state": "complete",
                "kind": of.get(c.SNAPSHOT_KIND),
                "sites": of.get(c.SNAPSHOT_SITES),
                "runs": of.get(c.SNAPSHOT_RUNS),
                "file": file,
            }
            rows.append(by_file[file])
        by_file[file]["time"] = event.time_ns / 1e9
    for row in rows:
        row["key"] = key_of(str(row["file"])) if row.get("file") and around.captures else None
    return rows


def _state(worker: Worker, now_s: float) -> str:
    """Whether a worker still sends: ``live``, ``silent``, or ``ended`` in good order."""
    if worker.ended:
        return "ended"
    patience_s = max(_SILENT_S, _SILENT_EXPORTS * worker.interval_s)
    return "silent" if now_s - worker.last_seen_s > patience_s else "live"


def _limits(streams: Streams) -> list[Plain]:
    used = {
        str(each.attributes.get(c.LIMIT_KIND, "")): each.value
        for each in streams.all(c.LIMIT_UTILIZATION.name)
    }
    limits = {
        str(each.attributes.get(c.LIMIT_KIND, "")): each.value
        for each in streams.all(c.MEMORY_LIMIT.name)
    }
    return [
        {"kind": kind, "size": size, "used": used.get(kind), "each": kind in _OF_EACH_PROCESS}
        for kind, size in sorted(limits.items())
    ]


def _processes(streams: Streams, tasks: Mapping[str, str]) -> list[Plain]:
    """The slots, also those that have no process any more, with the last size that it had."""
    levels = {
        name: {slot_of(each): each.value for each in streams.all(metric)}
        for name, metric in (
            ("rss", c.MEMORY.name),
            ("unique", c.MEMORY_UNIQUE.name),
            ("copied", c.MEMORY_COPIED.name),
            ("descendants", c.DESCENDANTS.name),
            ("files", c.OPEN_FILES.name),
            ("files_limit", c.OPEN_FILES_LIMIT.name),
            ("threads", c.THREADS.name),
            ("exhaustion", c.EXHAUSTION_TIME),
        )
    }
    gone = {
        slot: series.values[-1]
        for (metric, slot), series in streams.memory.items()
        if metric == c.MEMORY.name and slot not in levels["rss"]
    }
    return [
        {
            "slot": slot,
            "gone": slot in gone,
            "task": tasks.get(slot),
            **{name: by_slot.get(slot) for name, by_slot in levels.items()},
            "rss": levels["rss"].get(slot, gone.get(slot)),
            "rss_over_time": _over_time(streams.memory.get((c.MEMORY.name, slot))),
            "unique_over_time": _over_time(streams.memory.get((c.MEMORY_UNIQUE.name, slot))),
        }
        for slot in sorted({*levels["rss"], *gone}, key=_slot_order)
    ]


def _slot_order(slot: str) -> tuple[int, int, str]:
    """The main process, the children by their number, then the reporter and what else there is."""
    if slot.isascii() and slot.isdigit():
        return (1, int(slot[:9]), slot)
    return (0 if slot == "main" else 2, 0, slot)


def _tasks(streams: Streams) -> list[Plain]:
    runs = streams.runs_by_task()
    failed: dict[str, float] = {}
    overlapped: dict[str, float] = {}
    for each in streams.all(c.MEASURED.name):
        if each.attributes.get(c.TASK_STATE) == "FAILURE":
            failed[task_of(each)] = failed.get(task_of(each), 0) + each.value
        if each.attributes.get(c.EXCLUSIVE) is False:
            overlapped[task_of(each)] = overlapped.get(task_of(each), 0) + each.value
    changes = {
        name: streams.change_by_task(metric)
        for name, metric in (
            ("retained", c.HEAP_RETAINED.name),
            ("rss_delta", c.RSS_DELTA.name),
            ("traced", c.TRACED_DELTA.name),
        )
    }
    kept = {
        name: streams.change_by_task(metric)
        for name, metric in (
            ("files", c.OPEN_FILES_RETAINED.name),
            ("threads", c.THREADS_RETAINED.name),
        )
    }
    peak: dict[str, float] = {}
    for metric in (c.RSS_PEAK.name, c.TREE_PEAK.name):
        for each in streams.all(metric):
            if each.highest is not None:
                peak[task_of(each)] = max(peak.get(task_of(each), 0.0), each.highest)
    retained = {
        task: (_mean(changes["retained"], task) or 0.0) * count for task, count in runs.items()
    }
    grown = sum(total for total in retained.values() if total > 0)
    rows = [
        {
            "name": task,
            "runs": count,
            "failed": failed.get(task, 0),
            "overlapped": overlapped.get(task, 0),
            "retained": _mean(changes["retained"], task),
            **_interval(streams.growth.get(task)),
            "sampled": changes["retained"].get(task, (0, 0.0))[0],
            "share": max(retained[task], 0) / grown if grown else None,
            "peak": peak.get(task),
            "rss_delta": _mean(changes["rss_delta"], task),
            "traced": _mean(changes["traced"], task),
            "traced_runs": changes["traced"].get(task, (0, 0.0))[0],
            **{name: by_task.get(task, (0, 0.0))[1] for name, by_task in kept.items()},
        }
        for task, count in runs.items()
    ]
    rows.sort(key=lambda row: (-(row["share"] or 0.0), -row["runs"], row["name"]))
    for row in rows[:_GROWTH_SHOWN]:
        growth = streams.growth.get(row["name"])
        row["growth"] = _over_time(growth.total_bytes if growth else None)
    return rows


def _mean(changes: Mapping[str, tuple[int, float]], task: str) -> float | None:
    count, total = changes.get(task, (0, 0.0))
    return total / count if count else None


def _interval(growth: Growth | None) -> Plain:
    low, high = (growth and growth.batches.interval()) or (None, None)
    return {"low": low, "high": high}


def _site(event: LoggedEvent, source_of: SourceOf) -> Plain:
    of = event.attributes
    path, line = str(of.get(c.CODE_FILE, "")), of.get(c.CODE_LINE, 0)
    return {
        "rank": of.get(c.SITE_RANK),
        "name": str(of.get(c.SITE_NAME, "")),
        "path": path,
        "line": line,
        "function": str(of.get(c.CODE_FUNCTION, "")),
        "task": str(of.get(c.TASK_NAME, "")),
        "window": str(of.get(c.SITE_WINDOW, "")),
        "via": str(of.get(c.SITE_VIA, "")),
        "where": str(of.get(c.SITE_WHERE, "")),
        "size": of.get(c.SITE_SIZE),
        "blocks": of.get(c.SITE_BLOCKS),
        "runs": of.get(c.SITE_RUNS),
        "rate": of.get(c.SITE_RATE),
        "stack": [each for each in str(of.get(c.CODE_STACKTRACE, "")).split("\n") if each],
        "seen": event.time_ns / 1e9,
        "source": _source(source_of, path, line),
    }


def _source(source_of: SourceOf, path: str, line: object) -> Plain | None:
    if not path or not isinstance(line, int) or line < 1:
        return None
    source = source_of(path, line)
    return None if source is None else {"first": source.first, "lines": list(source.lines)}


def _all_verdicts(store: Store, now_s: float) -> Iterator[Verdict]:
    """Verdicts of events, and of gauges alone where the event did not arrive."""
    known = set()
    for verdict in store.verdicts:
        known.add(verdict.key)
        yield verdict
    for sender, worker in store.workers.items():
        for stream in worker.streams.all(c.LEAK_RATE):
            verdict = verdict_of(
                sender, {**stream.attributes, c.LEAK_RATE: stream.value}, worker.last_seen_s, ""
            )
            if verdict.key not in known:
                known.add(verdict.key)
                yield verdict


def _importance(verdict: Verdict) -> tuple[object, ...]:
    state = _STATES.index(verdict.state) if verdict.state in _STATES else len(_STATES)
    return (state, -(verdict.rate or 0.0), -verdict.changed_s)


def _verdict(
    verdict: Verdict, numbers: Mapping[Sender, int], store: Store, source_of: SourceOf
) -> Plain:
    streams = store.workers[verdict.worker].streams
    growth = streams.growth.get(verdict.task)
    return {
        "worker": numbers[verdict.worker],
        "state": verdict.state,
        "kind": verdict.kind,
        "where": verdict.where,
        "task": verdict.task,
        "began": verdict.began_s,
        "changed": verdict.changed_s,
        "text": verdict.text,
        "rate": verdict.rate,
        "rate_low": verdict.rate_low,
        "rate_high": verdict.rate_high,
        "runs": verdict.runs,
        "processes": verdict.processes,
        "explained": verdict.explained,
        "site": verdict.site,
        "site_share": verdict.site_share,
        "path": verdict.path,
        "line": verdict.line,
        "function": verdict.function,
        "holder": verdict.holder,
        "types": verdict.types,
        "exhaustion": verdict.exhaustion_s,
        "max_tasks": verdict.max_tasks,
        "growth": _over_time(growth.total_bytes if growth else None),
        "source": _source(source_of, verdict.path, verdict.line),
    }


def _over_time(series: Series | None) -> Plain | None:
    if series is None or not len(series):
        return None
    return {
        "times": [round(time_s, 1) for time_s in series.times_s],
        "values": _short(series.values),
    }


def _short(values: Sequence[float]) -> list[float]:
    """Numbers without digits that no plot shows."""
    return [float(f"{value:.{_DIGITS}g}") for value in values]


def _item(item: Item, numbers: Mapping[Sender, int]) -> Plain:
    return {
        "time": item.time_s,
        "kind": item.kind,
        "severity": item.severity,
        "worker": numbers[item.worker],
        "subject": item.subject,
        "lines": list(item.lines),
        "count": item.count,
        "details": dict(item.details),
        "grown": [
            {
                "type": each.type,
                "holder": each.holder,
                "growth": each.growth,
                "processes": len(each.slots),
            }
            for each in item.grown
        ],
    }
