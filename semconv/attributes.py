"""What a registry says of an attribute beside its name: type, meaning, examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import ExitReason
from otel_celery_memory.leaks.verdict import Kind, State, Where

STABLE_ELSEWHERE = (
    "code.file.path",
    "code.line.number",
    "code.function.name",
    "code.stacktrace",
    "process.pid",
)
"""Attributes of OpenTelemetry's own registry: referred to, not defined here."""


@dataclass(frozen=True)
class Attribute:
    """One attribute; ``type`` is string, int, double, boolean or the values of an enumeration."""

    type: str | tuple[str, ...]
    brief: str
    examples: tuple[Any, ...] = ()


ATTRIBUTES = {
    "celery.task.name": Attribute(
        "string", "Name of the task, or `_other` beyond 200 names.", ("shop.tasks.refresh",)
    ),
    "celery.task.id": Attribute(
        "string", "Id of the task's message.", ("5f0c6a2e-1c1b-4f0e-9d3a-0b8f1f2c3d4e",)
    ),
    "celery.task.state": Attribute(
        "string", "State in which the run ended.", ("SUCCESS", "FAILURE", "RETRY")
    ),
    "celery.task.redelivered": Attribute(
        "boolean",
        "The broker says that it had delivered the task's message before; absent if it does not.",
    ),
    "celery.task.age": Attribute(
        "double", "How long the task had been running, in seconds.", (1.5,)
    ),
    "celery.memory.direction": Attribute(
        (c.GROW, c.SHRINK, c.WARM_UP),
        "Whether memory grew or shrank; net is grow less shrink. `warm_up` is the growth of a "
        "task's first run in a process: imports and connections.",
    ),
    "celery.memory.exclusive": Attribute(
        "boolean", "Whether the run had its process to itself; false where it overlapped another."
    ),
    "celery.worker.slot": Attribute(
        "string",
        "`main`, `reporter` or the place in the pool: not the pid, and stable over recycling.",
        ("main", "reporter", "0"),
    ),
    "celery.memory.part": Attribute(
        (*c.PARTS, c.OTHER), "Part of the instrumentation, of which each fails alone."
    ),
    "celery.memory.frame.kind": Attribute(
        (c.FRAME_TASK_END, c.FRAME_OTHER, c.FRAME_DAMAGED),
        "What a record was that did not reach the reporter; of a damaged one it is not known.",
    ),
    "celery.memory.limit.kind": Attribute(
        "string", "Which limit.", ("cgroup", "rlimit_as", "max_memory_per_child", "host")
    ),
    "celery.memory.limit.size": Attribute("int", "Size of the limit, in bytes.", (536870912,)),
    "celery.memory.limit.used": Attribute(
        "int", "What of the limit is used, in bytes.", (490000000,)
    ),
    "celery.worker.exit.reason": Attribute(
        tuple(reason.value for reason in ExitReason), "Why the process ended."
    ),
    "celery.worker.exit.signal": Attribute("int", "Number of the signal that ended it.", (9,)),
    "celery.worker.exit.code": Attribute(
        "int", "Code that it ended with; absent if a signal ended it or if it is not known.", (3,)
    ),
    "celery.worker.exit.repeated": Attribute(
        "int",
        "How many processes this worker has lost in runs of the task's message, this one included.",
        (30,),
    ),
    "celery.worker.message.state": Attribute(
        c.MESSAGE_STATES,
        "Whether a message that the main process holds runs, waits for a process, waits for its "
        "time, or is one whose task was revoked.",
    ),
    "celery.worker.descendant.name": Attribute(
        "string", "Name of the largest of the processes, as `ps -o comm` shows it.", ("chrome",)
    ),
    "celery.worker.descendant.processes": Attribute("int", "How many processes they are.", (3,)),
    "celery.worker.descendant.rss": Attribute("int", "Sum of their RSS, in bytes.", (209715200,)),
    "celery.worker.descendant.unique": Attribute(
        "int", "Sum of their unique memory, in bytes.", (157286400,)
    ),
    "celery.worker.descendant.age": Attribute(
        "double", "Seconds since the run ended that started the largest one.", (5.8,)
    ),
    "celery.worker.exit.recovered": Attribute(
        "boolean", "Whether a later start of the worker reported the end."
    ),
    "celery.worker.process.rss": Attribute("int", "RSS last seen, in bytes.", (209715200,)),
    "celery.worker.process.rss_peak": Attribute("int", "Highest RSS seen, in bytes.", (314572800,)),
    "celery.worker.cgroup.oom_kills": Attribute(
        "int", "OOM kills in the worker's cgroup since it started.", (1,)
    ),
    "celery.memory.site.rank": Attribute("int", "Place in the ranking, from 1.", (1,)),
    "celery.memory.site.name": Attribute(
        "string", "Short and stable name of a place in the code.", ("app/feeds.py:41",)
    ),
    "celery.memory.site.size": Attribute("int", "Bytes left alive by a traced run.", (528384,)),
    "celery.memory.site.blocks": Attribute("int", "Blocks left alive by a traced run.", (502,)),
    "celery.memory.site.size_change": Attribute(
        "int", "Change of the size since the event before, in bytes.", (0,)
    ),
    "celery.memory.site.runs": Attribute("int", "Traced runs in the interval.", (36,)),
    "celery.memory.site.rate": Attribute(
        "int", "Bytes a minute, estimated from all runs of the task.", (1048576,)
    ),
    "celery.memory.site.share": Attribute(
        "double", "Share of a leak that is allocated at the place.", (0.97,)
    ),
    "celery.memory.leak.state": Attribute(
        tuple(state.value for state in State),
        "How sure it is: it grows beyond chance, as a cache that fills up does, too; it has grown "
        "beyond what a cache, a pool or warm-up explains, and does not slow down; it stands still.",
    ),
    "celery.memory.leak.kind": Attribute(tuple(kind.value for kind in Kind), "What grows."),
    "celery.memory.leak.where": Attribute(
        tuple(where.value for where in Where),
        "Whose memory grows: a task's runs, a receiver of Celery's signals, a process while none "
        "of its tasks runs, the main process, or processes that tasks started.",
    ),
    "celery.memory.leak.rate": Attribute(
        "double",
        "What a run leaves behind: bytes, or how many of what the kind counts.",
        (10445.0, 0.5),
    ),
    "celery.memory.leak.rate_low": Attribute(
        "double", "What the rate is at least, at 95 %.", (10035.0,)
    ),
    "celery.memory.leak.rate_high": Attribute(
        "double", "What the rate is at most, at 95 %.", (10854.0,)
    ),
    "celery.memory.leak.runs": Attribute("int", "Runs in which it was seen.", (4100,)),
    "celery.memory.leak.processes": Attribute("int", "Processes in which it was seen.", (6,)),
    "celery.memory.leak.explained": Attribute(
        "double", "Share of what the processes have grown by that it explains.", (0.97,)
    ),
    "celery.memory.leak.condition": Attribute(
        "string", "In which runs it happens, if not in all.", ("in runs that fail",)
    ),
    "celery.memory.leak.reason": Attribute(
        "string", "Why it is in this state.", ("it does not slow down",)
    ),
    "celery.memory.leak.holder": Attribute(
        "string",
        "What holds it: names of modules, types and attributes, the root first. On a metric at "
        "most 120 characters.",
        ("shop.feeds._seen",),
    ),
    "celery.memory.leak.types": Attribute(
        "string",
        "Which types multiply, and by how many objects a run, the most numerous first.",
        ("+3 dict, +2 str",),
    ),
    "celery.memory.exhaustion.time": Attribute(
        "double", "Seconds until the nearest limit is reached, by forecast.", (25200.0,)
    ),
    "celery.memory.max_tasks_per_child": Attribute(
        "int",
        "Largest `worker_max_tasks_per_child` that keeps a process under its limit.",
        (4000,),
    ),
    "celery.memory.max_memory_per_child": Attribute(
        "int",
        "A `worker_max_memory_per_child` that lets healthy runs live, in bytes; Celery's setting "
        "is in KiB.",
        (524288000,),
    ),
    "celery.memory.census.type": Attribute(
        "string", "Module and qualified name of a type of objects.", ("shop.models.Order",)
    ),
    "celery.memory.census.objects": Attribute(
        "int",
        "How many of them there are; where the collector does not track them, in one container.",
        (10001,),
    ),
    "celery.memory.census.growth": Attribute("int", "How many more than before.", (10000,)),
    "celery.memory.census.runs": Attribute("int", "Runs between the two moments.", (10,)),
    "celery.memory.census.holder": Attribute(
        "string",
        "What holds new ones: names of modules, types and attributes, the root first.",
        ("shop.feeds.SEEN → list[…]",),
    ),
    "celery.memory.census.share": Attribute(
        "double", "Share of the new ones that were looked at which it holds.", (1.0,)
    ),
    "celery.memory.census.hold": Attribute(
        "double", "Longest time that the census held a run, in seconds.", (0.12,)
    ),
    "celery.memory.census.problem": Attribute(
        "string", "Why the census was not taken.", ("a limit of memory is near",)
    ),
    "celery.memory.site.via": Attribute(
        "string",
        "Line of a library that the site's line called, and that allocated.",
        ("threading.py:265",),
    ),
    "celery.memory.site.where": Attribute(
        ("task", "receiver", "idle"),
        "What code allocated: a task's function or what it called, a receiver of Celery's signals, "
        "or code outside of runs, such as a thread.",
    ),
    "celery.memory.site.window": Attribute(
        "string",
        "What the size is of: several runs in a row, a single run, processes "
        "since they were warm, or a part of a run.",
        ("complete", "first_run", "process", "partial"),
    ),
    "celery.memory.snapshot.kind": Attribute("string", "What was captured.", ("sites",)),
    "celery.memory.snapshot.reason": Attribute("string", "Why it was captured.", ("asked",)),
    "celery.memory.snapshot.sites": Attribute("int", "How many sites it has.", (120,)),
    "celery.memory.snapshot.runs": Attribute("int", "How many traced runs it is of.", (3,)),
    "celery.memory.snapshot.size": Attribute("int", "Bytes of all its sites.", (1048576,)),
    "celery.memory.snapshot.file": Attribute(
        "string", "Name of the file it was written to.", ("capture.jsonl.gz",)
    ),
    "celery.task.memory.rss.start": Attribute(
        "int", "RSS at the task's start, in bytes.", (52428800,)
    ),
    "celery.task.memory.rss.delta": Attribute(
        "int", "RSS at the task's end less RSS at its start, in bytes.", (561000,)
    ),
    "celery.task.memory.rss.peak": Attribute(
        "int", "Highest RSS inside the task, above its start, in bytes.", (80000000,)
    ),
    "celery.task.memory.traced.delta": Attribute(
        "int", "Traced memory at the task's end less that at its start, in bytes.", (528384,)
    ),
    "celery.task.memory.traced.peak": Attribute(
        "int", "Highest traced memory inside the task, above its start, in bytes.", (600000,)
    ),
    "celery.task.memory.exclusive": Attribute(
        "boolean", "Whether the task had its process to itself."
    ),
}
