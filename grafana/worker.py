"""The Worker dashboard: every process of a worker over time, against its limits."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build

from grafana import ids
from grafana import recordings as r
from grafana.event_queries import Events
from grafana.frame import INSTANCE, OF_SLOT, SLOTS, page
from grafana.names import GENERATION, LIMIT_KIND, MESSAGE_STATE, REASON, SLOT, TASK, series
from grafana.panels import Panel, Query, Question, events, over_time
from grafana.promql import left_behind
from grafana.recycling import recycling
from grafana.stores import EventStore
from otel_celery_memory import conventions as c

_BY_SLOT = f"instance, {SLOT}"
_SLOT = f"{{{{instance}}}} {{{{{SLOT}}}}}"
_NO_PROCESS = "No process of the chosen workers sent this metric in this time."


def worker(store: EventStore) -> build.Dashboard:
    """Memory of each process, Python's and malloc's part of it, and how processes end."""
    return page(
        store,
        ids.WORKER,
        "Celery memory / Worker",
        "Each process of a worker against its limits; how processes end.",
        [
            _memory(),
            _limits(),
            _heap(),
            _unique(),
            _copied(),
            _descendants(),
            _messages(),
            _exits(),
            _tasks(),
            _descriptors(),
            _threads(),
            _collector(),
            _swap(),
            *recycling(),
            _lost(store),
            _descendants_left(store),
        ],
        [SLOTS],
    )


def _memory() -> Panel:
    limit = (
        f'{series(c.MEMORY_LIMIT)}{{{INSTANCE}, {LIMIT_KIND}=~"rlimit_.+|max_memory_per_child"}}'
    )
    return over_time(
        Question(
            ids.WORKER_MEMORY,
            "How big is each process?",
            "RSS by slot of the pool. A slot keeps its line when its process is recycled. The "
            "limits are those of one process.",
            "bytes",
            _NO_PROCESS,
        ),
        [
            Query(f"sum by ({_BY_SLOT}) ({series(c.MEMORY)}{{{OF_SLOT}}})", _SLOT),
            Query(f"max by ({LIMIT_KIND}) ({limit})", f"limit {{{{{LIMIT_KIND}}}}}"),
        ],
    )


def _limits() -> Panel:
    charged = f"{series(c.MEMORY_CGROUP)}{{{INSTANCE}}}"
    whole = f'{series(c.MEMORY_LIMIT)}{{{INSTANCE}, {LIMIT_KIND}=~"cgroup.*|host|rlimit_as"}}'
    # Only with a limit: else the address space means nothing, and is many times the rest.
    with_limit = f'{series(c.MEMORY_LIMIT)}{{{INSTANCE}, {LIMIT_KIND}="{c.LIMIT_AS}"}}'
    virtual = (
        f"max by (job, instance) ({series(c.MEMORY_VIRTUAL)}{{{INSTANCE}}}) "
        f"and on (job, instance) {with_limit}"
    )
    return over_time(
        Question(
            ids.WORKER_LIMITS,
            "How near is it to a limit?",
            "The whole worker against the limits of its cgroup and host, and its largest address "
            "space if that has a limit. The cgroup's charge includes the page cache, which alerts "
            "leave out.",
            "bytes",
            "The worker has no limit that can be read.",
        ),
        [
            Query(f"sum by (instance) ({charged})", "cgroup of {{instance}}"),
            Query(f"sum by (instance) ({r.MEMORY_BY_WORKER.name}{{{INSTANCE}}})", "{{instance}}"),
            Query(f"max by (instance) ({virtual})", "address space in {{instance}}"),
            Query(f"max by ({LIMIT_KIND}) ({whole})", f"limit {{{{{LIMIT_KIND}}}}}"),
        ],
    )


def _heap() -> Panel:
    return over_time(
        Question(
            ids.WORKER_HEAP,
            "Is it Python objects, malloc, or memory kept free?",
            "If blocks grow with RSS, it is Python objects. If malloc in use grows without blocks, "
            "it is native code. If malloc free grows, it is fragmentation.",
            "bytes",
            "The chosen processes finished no task in this time.",
        ),
        [
            Query(f"sum({series(c.MEMORY)}{{{OF_SLOT}}})", "RSS"),
            Query(f"sum({series(c.MALLOC_USED)}{{{OF_SLOT}}})", "malloc in use"),
            Query(f"sum({series(c.MALLOC_FREE)}{{{OF_SLOT}}})", "malloc free but kept"),
            Query(f"sum({series(c.HEAP_BLOCKS)}{{{OF_SLOT}}})", "interpreter's blocks"),
        ],
        right={"interpreter's blocks": "short"},
    )


def _unique() -> Panel:
    return over_time(
        Question(
            ids.WORKER_UNIQUE,
            "How much would be freed if a process ended?",
            "Memory that no other process shares, by slot of the pool. Right after the start it is "
            "much less than RSS; it grows as pages inherited from the main process are written.",
            "bytes",
            _NO_PROCESS,
        ),
        [Query(f"sum by ({_BY_SLOT}) ({series(c.MEMORY_UNIQUE)}{{{OF_SLOT}}})", _SLOT)],
    )


def _copied() -> Panel:
    return over_time(
        Question(
            ids.WORKER_COPIED,
            "Are pages that it shared with the main process being copied?",
            "Memory that a child inherited from the main process and that was written since: each "
            "page was copied. RSS does not show it, the machine's memory does. If it is a large "
            "part of what the main process has, load that in the children, or call gc.freeze() "
            "before the fork.",
            "bytes",
            "No child has started under this reporter, or none can be read.",
        ),
        [Query(f"sum by ({_BY_SLOT}) ({series(c.MEMORY_COPIED)}{{{OF_SLOT}}})", _SLOT)],
    )


def _descendants() -> Panel:
    sizes = {"RSS": c.DESCENDANTS, "unique": c.DESCENDANTS_UNIQUE}
    left = f"{series(c.DESCENDANTS_LEFT_SIZE)}{{{INSTANCE}}}"
    return over_time(
        Question(
            ids.WORKER_DESCENDANTS,
            "How big are the processes that its tasks started?",
            "All descendants together, by the slot whose tasks started them. Unique memory is what "
            "no other process shares: forks share most of theirs. Left behind is what still runs "
            "though the runs that started it have ended: if that grows, the task does not end its "
            "processes when it fails or runs into a time limit.",
            "bytes",
            "No process that a task started was seen in this time.",
        ),
        [
            Query(f"sum by ({_BY_SLOT}) ({series(metric)}{{{OF_SLOT}}})", f"{what} {_SLOT}")
            for what, metric in sizes.items()
        ]
        + [Query(f"sum by ({TASK}) ({left})", f"left behind by {{{{{TASK}}}}}")],
    )


def _messages() -> Panel:
    by = f"instance, {MESSAGE_STATE}"
    main = f'{series(c.MEMORY)}{{{INSTANCE}, {SLOT}="main"}}'
    return over_time(
        Question(
            ids.WORKER_MESSAGES,
            "Which messages does the main process hold?",
            "Messages by state, and what the main process grows with them. Those that wait for "
            "their time (countdown, eta) are all held in memory, without limit, whatever the "
            "prefetch multiplier is.",
            "short",
            "The worker has not sent how many messages it holds.",
        ),
        [
            Query(
                f"sum by ({by}) ({series(c.MESSAGES)}{{{INSTANCE}}})",
                f"{{{{instance}}}} {{{{{MESSAGE_STATE}}}}}",
            ),
            Query(f"sum({series(c.MESSAGES_SIZE)}{{{INSTANCE}}})", "bodies"),
            Query(f"sum({main})", "RSS of main"),
        ],
        right={"bodies": "bytes", "RSS of main": "bytes"},
    )


def _exits() -> Panel:
    ends = f"increase({series(c.PROCESS_EXITS)}{{{OF_SLOT}}}[$__rate_interval])"
    return over_time(
        Question(
            ids.WORKER_EXITS,
            "How do its processes end?",
            "Ends by reason. Recycling (max_tasks, max_memory) more than once a minute for each "
            "process costs more than it saves. The graph does not show the first end of a reason.",
            "short",
            "No process ended in this time, or each reason for the first time.",
        ),
        [Query(f"sum by ({REASON}) ({ends})", f"{{{{{REASON}}}}}")],
        bars=True,
        stacked=True,
    )


def _tasks() -> Panel:
    growth = left_behind(TASK, "$__rate_interval", INSTANCE, "rate")
    return over_time(
        Question(
            ids.WORKER_TASKS,
            "Which task makes it grow?",
            "What runs of each task leave behind a second by the allocators' counters, net.",
            "binBps",
            "No task finished in this time.",
        ),
        [Query(f"topk(10,\n{growth}\n)", f"{{{{{TASK}}}}}")],
    )


def _descriptors() -> Panel:
    return over_time(
        Question(
            ids.WORKER_DESCRIPTORS,
            "How many descriptors are open?",
            "Files, sockets and pipes in use by process, and the lowest soft limit.",
            "short",
            _NO_PROCESS,
        ),
        [
            Query(f"max by ({_BY_SLOT}) ({series(c.OPEN_FILES)}{{{OF_SLOT}}})", _SLOT),
            Query(f"min({series(c.OPEN_FILES_LIMIT)}{{{OF_SLOT}}})", "limit"),
        ],
    )


def _threads() -> Panel:
    return over_time(
        Question(
            ids.WORKER_THREADS,
            "How many threads does each process have?",
            "Threads by slot of the pool, native ones too. If the number grows with each run, a "
            "task starts threads and does not end them.",
            "short",
            _NO_PROCESS,
        ),
        [Query(f"max by ({_BY_SLOT}) ({series(c.THREADS)}{{{OF_SLOT}}})", _SLOT)],
    )


def _collector() -> Panel:
    def rate(metric: c.Metric) -> str:
        return f"rate({series(metric)}{{{OF_SLOT}}}[$__rate_interval])"

    generation = f"{{{{{GENERATION}}}}}"
    return over_time(
        Question(
            ids.WORKER_COLLECTOR,
            "How much does the garbage collector do?",
            "Collections a second of all chosen processes by generation, and objects a second that "
            "they freed. Garbage in cycles waits for a collection of its generation, of which the "
            "oldest has few. Objects that cannot be collected stay for ever.",
            "cps",
            "The chosen processes finished no task in this time.",
        ),
        [
            Query(f"sum by ({GENERATION}) ({rate(c.GC_COLLECTIONS)})", f"generation {generation}"),
            Query(f"sum({rate(c.GC_COLLECTED)})", "objects collected"),
            # Told of a slot that has some: of the others it is zero.
            Query(
                f"sum({rate(c.GC_UNCOLLECTABLE)}) or 0 * sum({rate(c.GC_COLLECTIONS)})",
                "uncollectable objects",
            ),
        ],
        right={"objects collected": "short", "uncollectable objects": "short"},
    )


def _swap() -> Panel:
    return over_time(
        Question(
            ids.WORKER_SWAP,
            "What is swapped out?",
            "RSS does not count swapped memory: a process that shrinks while this grows has freed "
            "nothing.",
            "bytes",
            _NO_PROCESS,
        ),
        [
            Query(f"sum by ({_BY_SLOT}) ({series(c.MEMORY_SWAP)}{{{OF_SLOT}}})", _SLOT),
            Query(f"sum({series(c.MEMORY_CGROUP_SWAP)}{{{INSTANCE}}})", "cgroup"),
        ],
    )


def _lost(store: EventStore) -> Panel:
    return events(
        Question(
            ids.WORKER_LOST,
            "Which processes were lost, and what were they running?",
            "One event for each, with the reason, the last known size and the task in flight.",
            "none",
            "No process was lost in this time.",
        ),
        store,
        Events((c.PROCESS_LOST.name,)),
    )


def _descendants_left(store: EventStore) -> Panel:
    return events(
        Question(
            ids.WORKER_DESCENDANTS_LEFT,
            "Which processes did runs leave behind?",
            "One event when processes of runs that have ended hold 16 MiB, again whenever that has "
            "doubled, with the task that started them.",
            "none",
            "No run left processes of this size behind in this time.",
        ),
        store,
        Events((c.DESCENDANTS_LEFT.name,)),
    )
