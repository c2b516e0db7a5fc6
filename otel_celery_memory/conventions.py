"""Every metric, attribute and event that this package emits, as data: the contract with its users.

The documentation's tables and the registry of semantic conventions are generated from here, and
tests compare them. Sizes are integers in bytes (unit ``By``).
"""

from __future__ import annotations

from dataclasses import dataclass

SCOPE = "otel_celery_memory"
VERSION = "0.1.0"
"""The version of the instrumentation scope, and of the wheel."""

# Attributes
TASK_NAME = "celery.task.name"
TASK_ID = "celery.task.id"
TASK_STATE = "celery.task.state"
TASK_AGE = "celery.task.age"
TASK_REDELIVERED = "celery.task.redelivered"
DIRECTION = "celery.memory.direction"
EXCLUSIVE = "celery.memory.exclusive"
SLOT = "celery.worker.slot"
PART = "celery.memory.part"
FRAME_KIND = "celery.memory.frame.kind"
LIMIT_KIND = "celery.memory.limit.kind"
LIMIT_SIZE = "celery.memory.limit.size"
LIMIT_USED = "celery.memory.limit.used"
EXIT_REASON = "celery.worker.exit.reason"
EXIT_SIGNAL = "celery.worker.exit.signal"
EXIT_CODE = "celery.worker.exit.code"
EXIT_REPEATED = "celery.worker.exit.repeated"
EXIT_RECOVERED = "celery.worker.exit.recovered"
PROCESS_RSS = "celery.worker.process.rss"
PROCESS_RSS_PEAK = "celery.worker.process.rss_peak"
PROCESS_PID = "process.pid"
CGROUP_OOM_KILLS = "celery.worker.cgroup.oom_kills"
SITE_RANK = "celery.memory.site.rank"
SITE_NAME = "celery.memory.site.name"
SITE_WINDOW = "celery.memory.site.window"
SITE_VIA = "celery.memory.site.via"
SITE_WHERE = "celery.memory.site.where"
SITE_SIZE = "celery.memory.site.size"
SITE_BLOCKS = "celery.memory.site.blocks"
SITE_SIZE_CHANGE = "celery.memory.site.size_change"
SITE_RUNS = "celery.memory.site.runs"
SITE_RATE = "celery.memory.site.rate"
SITE_SHARE = "celery.memory.site.share"
LEAK_STATE = "celery.memory.leak.state"
LEAK_KIND = "celery.memory.leak.kind"
LEAK_WHERE = "celery.memory.leak.where"
LEAK_RATE = "celery.memory.leak.rate"
LEAK_RATE_LOW = "celery.memory.leak.rate_low"
LEAK_RATE_HIGH = "celery.memory.leak.rate_high"
LEAK_RUNS = "celery.memory.leak.runs"
LEAK_PROCESSES = "celery.memory.leak.processes"
LEAK_EXPLAINED = "celery.memory.leak.explained"
LEAK_HOLDER = "celery.memory.leak.holder"
LEAK_TYPES = "celery.memory.leak.types"
LEAK_CONDITION = "celery.memory.leak.condition"
LEAK_REASON = "celery.memory.leak.reason"
EXHAUSTION_TIME = "celery.memory.exhaustion.time"
MAX_TASKS_PER_CHILD = "celery.memory.max_tasks_per_child"
MAX_MEMORY_PER_CHILD = "celery.memory.max_memory_per_child"
SNAPSHOT_KIND = "celery.memory.snapshot.kind"
SNAPSHOT_REASON = "celery.memory.snapshot.reason"
SNAPSHOT_SITES = "celery.memory.snapshot.sites"
SNAPSHOT_RUNS = "celery.memory.snapshot.runs"
SNAPSHOT_SIZE = "celery.memory.snapshot.size"
SNAPSHOT_FILE = "celery.memory.snapshot.file"
CENSUS_TYPE = "celery.memory.census.type"
CENSUS_OBJECTS = "celery.memory.census.objects"
CENSUS_GROWTH = "celery.memory.census.growth"
CENSUS_RUNS = "celery.memory.census.runs"
CENSUS_HOLDER = "celery.memory.census.holder"
CENSUS_SHARE = "celery.memory.census.share"
CENSUS_HOLD = "celery.memory.census.hold"
CENSUS_PROBLEM = "celery.memory.census.problem"
MESSAGE_STATE = "celery.worker.message.state"
DESCENDANT_PROCESSES = "celery.worker.descendant.processes"
DESCENDANT_NAME = "celery.worker.descendant.name"
DESCENDANT_RSS = "celery.worker.descendant.rss"
DESCENDANT_UNIQUE = "celery.worker.descendant.unique"
DESCENDANT_AGE = "celery.worker.descendant.age"
GC_GENERATION = "cpython.gc.generation"
CODE_FILE = "code.file.path"
CODE_LINE = "code.line.number"
CODE_FUNCTION = "code.function.name"
CODE_STACKTRACE = "code.stacktrace"

# Attributes of spans
SPAN_RSS_START = "celery.task.memory.rss.start"
SPAN_RSS_DELTA = "celery.task.memory.rss.delta"
SPAN_RSS_PEAK = "celery.task.memory.rss.peak"
SPAN_TRACED_DELTA = "celery.task.memory.traced.delta"
SPAN_TRACED_PEAK = "celery.task.memory.traced.peak"
SPAN_EXCLUSIVE = "celery.task.memory.exclusive"

LIMIT_CGROUP = "cgroup"
LIMIT_CGROUP_HIGH = "cgroup_high"
LIMIT_CGROUP_SWAP = "cgroup_swap"
LIMIT_AS = "rlimit_as"
LIMIT_DATA = "rlimit_data"
LIMIT_MAX_MEMORY = "max_memory_per_child"
LIMIT_HOST = "host"
"""The values of ``celery.memory.limit.kind``."""

FRAME_TASK_END = "task_end"
FRAME_OTHER = "other"
FRAME_DAMAGED = "damaged"
"""The values of ``celery.memory.frame.kind``."""

MESSAGE_STATES = ("active", "reserved", "scheduled", "revoked")
"""The values of ``celery.worker.message.state``: the words of ``celery inspect``."""

TRACING_UNSAFE = "tracing_beside_native_threads"
"""Nothing failed: to stop tracing could crash this process, so it is not traced (gh-128679)."""
MALLOC_SLOW = "malloc"
"""Nothing failed: one read of glibc's counters took so long that there are no others, as they would
hold runs. What tasks keep is not measured in this process from then on."""
PARTS = (
    "measurement",
    "spans",
    "tracing",
    TRACING_UNSAFE,
    "heap",
    MALLOC_SLOW,
    "counters",
    "census",
    "delivery",
    "checks",
    "messages",
    "records",
    "ticks",
    "limits",
    "descendants",
    "leaks",
    "oom_kills",
    "tasks_in_flight",
    "requests",
    "sending",
)
"""The values of ``celery.memory.part``: of a process that runs tasks, of the main process, of the
reporter."""

GROW, SHRINK = "grow", "shrink"
WARM_UP = "warm_up"
"""The values of ``celery.memory.direction``. What a task's first run in a process leaves behind,
imports and connections, is no growth that goes on, nor is what fills caches while a worker
warms up (the setting ``warm_up``): that has a value of its own."""
OTHER = "_other"
"""The attribute value of everything that did not fit into a bounded set."""

TASK_NAMES_MAX = 200
TASK_STATES_MAX = 32
BUCKET_BOUNDS_BYTES = tuple(64 * 1024 * 4**power for power in range(9))
"""64 KiB to 4 GiB in powers of 4: the SDK's default bounds end at 10,000, useless for bytes."""


@dataclass(frozen=True)
class Metric:
    """One instrument; ``kind`` is its type in OpenTelemetry, ``bounds`` a histogram's buckets."""

    name: str
    kind: str
    unit: str
    attributes: tuple[str, ...]
    meaning: str
    bounds: tuple[float, ...] = BUCKET_BOUNDS_BYTES


@dataclass(frozen=True)
class Event:
    """One log event; ``when`` says when it is emitted and what it is about.

    ``calm_severity`` is that of events which ask nobody to act, if these have one of their own.
    """

    name: str
    severity: str
    attributes: tuple[str, ...]
    when: str
    calm_severity: str = ""

    @property
    def severities(self) -> str:
        """Its severity, or both, for documents."""
        return " or ".join(filter(None, (self.severity, self.calm_severity)))


@dataclass(frozen=True)
class SpanAttribute:
    """One attribute on the task's span."""

    name: str
    type: str
    meaning: str


RSS_DELTA = Metric(
    "celery.task.memory.rss.delta",
    "Histogram",
    "By",
    (TASK_NAME, DIRECTION),
    "Size of the RSS change over the task; net = grow - shrink",
)
RSS_PEAK = Metric(
    "celery.task.memory.rss.peak",
    "Histogram",
    "By",
    (TASK_NAME,),
    "Highest RSS inside the task, above RSS at its start",
)
TREE_PEAK = Metric(
    "celery.task.memory.tree.peak",
    "Histogram",
    "By",
    (TASK_NAME,),
    "Highest RSS inside the task together with that of the processes that it started, above its "
    "own RSS at its start. Sent of runs that had such processes when the reporter looked, once a "
    "second: a higher peak between two looks is not in it",
)
RSS_RETAINED = Metric(
    "celery.task.memory.rss.retained",
    "Histogram",
    "By",
    (TASK_NAME, DIRECTION),
    "RSS change of the process from one task's start to the next one's start there, or to its "
    "orderly end. RSS grows in the run that touches a new page, mostly that with the largest "
    "working set: it says that a process grows, not which task leaks",
    (),
)
_LEFT_BEHIND = (
    "from a run's start to the next run's start in that process, at a sample of runs, without "
    "cyclic garbage and first runs; net = grow - shrink"
)
HEAP_RETAINED = Metric(
    "celery.task.heap.retained",
    "Histogram",
    "By",
    (TASK_NAME, DIRECTION),
    "Change of the bytes in use by malloc's own counter, and of the interpreter's small blocks at "
    f"their mean size, {_LEFT_BEHIND}; the count of grow and shrink is that of the sampled runs; "
    "less than 90 B counts as 0, less than 1 KiB where another task ran next; what samples show "
    "counts once it is sure that runs of the task keep something, or is more than 32 KiB and more "
    "than chance makes of such samples",
    (),
)
BLOCKS_RETAINED = Metric(
    "celery.task.heap.blocks.retained",
    "Histogram",
    "{block}",
    (TASK_NAME, DIRECTION),
    f"Change of the blocks allocated by the interpreter, {_LEFT_BEHIND}",
    (),
)
OPEN_FILES_RETAINED = Metric(
    "celery.task.open_files.retained",
    "Histogram",
    "{file}",
    (TASK_NAME, DIRECTION),
    f"Change of the descriptors in use, {_LEFT_BEHIND}. Sent of runs that changed it",
    (),
)
THREADS_RETAINED = Metric(
    "celery.task.threads.retained",
    "Histogram",
    "{thread}",
    (TASK_NAME, DIRECTION),
    f"Change of the number of threads, {_LEFT_BEHIND}. Sent of runs that changed it",
    (),
)
HEAP_GARBAGE = Metric(
    "celery.task.heap.garbage",
    "Histogram",
    "By",
    (TASK_NAME, DIRECTION),
    "Cyclic garbage that the collector freed right after a run, at the same sample of runs: no "
    "leak, but memory that waits for the collector. Sent of runs that left some",
    (),
)
TRACED_DELTA = Metric(
    "celery.task.memory.traced.delta",
    "Histogram",
    "By",
    (TASK_NAME, DIRECTION),
    "Traced memory still allocated at the end of a traced task",
)
TRACED_PEAK = Metric(
    "celery.task.memory.traced.peak",
    "Histogram",
    "By",
    (TASK_NAME,),
    "Highest traced memory inside a traced task, above that at its start",
)
MEASURED = Metric(
    "celery.task.memory.measured",
    "Counter",
    "{task}",
    (TASK_NAME, TASK_STATE, EXCLUSIVE),
    "Tasks measured; exclusive is false where they overlapped another",
)
RETAINED_METRICS = (
    *(HEAP_RETAINED, BLOCKS_RETAINED, OPEN_FILES_RETAINED, THREADS_RETAINED, HEAP_GARBAGE),
)
TASK_METRICS = (
    *(RSS_DELTA, RSS_PEAK, RSS_RETAINED, *RETAINED_METRICS),
    *(TRACED_DELTA, TRACED_PEAK, TREE_PEAK, MEASURED),
)

MEMORY = Metric("celery.worker.memory", "UpDownCounter", "By", (SLOT,), "RSS")
MEMORY_UNIQUE = Metric(
    "celery.worker.memory.unique",
    "UpDownCounter",
    "By",
    (SLOT,),
    "Memory that no other process shares",
)
MEMORY_COPIED = Metric(
    "celery.worker.memory.copied",
    "UpDownCounter",
    "By",
    (SLOT,),
    "Written memory that the process shared at its start, mostly pages inherited by the fork, and "
    "that it does not share any more: they were written by it or by those that had them too, and "
    "copied. RSS does not grow by that, what the machine needs does",
)
DESCENDANTS = Metric(
    "celery.worker.memory.descendants",
    "UpDownCounter",
    "By",
    (SLOT,),
    "RSS of the processes that were started by tasks in the slot, and by what they started, as far "
    "as they still run; of main also what it started beside the pool, and orphans that it adopted "
    "as process 1. Pages that several of them have are counted for each",
)
DESCENDANTS_UNIQUE = Metric(
    "celery.worker.memory.descendants.unique",
    "UpDownCounter",
    "By",
    (SLOT,),
    "Memory of these processes that no other process shares",
)
DESCENDANTS_LEFT_SIZE = Metric(
    "celery.worker.memory.descendants.left",
    "UpDownCounter",
    "By",
    (TASK_NAME,),
    "Of the processes that runs of the task started, those that still run five seconds after these "
    "runs ended: their unique memory where it can be read, and RSS otherwise",
)
MEMORY_PROPORTIONAL = Metric(
    "celery.worker.memory.proportional",
    "UpDownCounter",
    "By",
    (SLOT,),
    "Memory, with each shared page divided among the processes that share it",
)
MEMORY_SWAP = Metric("celery.worker.memory.swap", "UpDownCounter", "By", (SLOT,), "Swapped out")
MEMORY_VIRTUAL = Metric(
    "celery.worker.memory.virtual", "UpDownCounter", "By", (SLOT,), "Address space"
)
MEMORY_LIMIT = Metric(
    "celery.worker.memory.limit",
    "UpDownCounter",
    "By",
    (LIMIT_KIND,),
    "Limit of kind cgroup, cgroup_high (where the kernel begins to throttle), cgroup_swap or host "
    "for the worker as a whole, rlimit_as, rlimit_data or max_memory_per_child for each of its "
    "processes",
)
LIMIT_UTILIZATION = Metric(
    "celery.worker.memory.limit.utilization",
    "Gauge",
    "1",
    (LIMIT_KIND,),
    "Share of a limit that is used: of a cgroup, what the kernel could not reclaim at once, at the "
    "fullest level; of a limit of each process, in the fullest process; of the host, what is not "
    "available",
)
MEMORY_CGROUP = Metric(
    "celery.worker.memory.cgroup",
    "UpDownCounter",
    "By",
    (),
    "Memory charged to the worker's cgroup",
)
MEMORY_CGROUP_SWAP = Metric(
    "celery.worker.memory.cgroup.swap",
    "UpDownCounter",
    "By",
    (),
    "Swap charged to the worker's cgroup",
)
OPEN_FILES = Metric(
    "celery.worker.open_files", "UpDownCounter", "{file}", (SLOT,), "Descriptors in use"
)
OPEN_FILES_LIMIT = Metric(
    "celery.worker.open_files.limit", "UpDownCounter", "{file}", (SLOT,), "Soft descriptor limit"
)
THREADS = Metric("celery.worker.threads", "UpDownCounter", "{thread}", (SLOT,), "Threads")
MESSAGES = Metric(
    "celery.worker.messages",
    "UpDownCounter",
    "{message}",
    (MESSAGE_STATE,),
    "Messages that the main process holds: active (running), reserved (waiting for a process), "
    "scheduled (waiting for their time) and revoked, of which it holds the ids alone",
)
MESSAGES_SIZE = Metric(
    "celery.worker.messages.size",
    "UpDownCounter",
    "By",
    (MESSAGE_STATE,),
    "Size of the bodies of these messages as they were received, estimated from a hundred of each "
    "state; in memory a message takes some kilobytes more. None for revoked",
)
HEAP_BLOCKS = Metric(
    "celery.worker.heap.blocks",
    "UpDownCounter",
    "{block}",
    (SLOT,),
    "Blocks allocated by the interpreter",
)
MALLOC_USED = Metric(
    "celery.worker.heap.malloc.used", "UpDownCounter", "By", (SLOT,), "malloc: in use"
)
MALLOC_FREE = Metric(
    "celery.worker.heap.malloc.free", "UpDownCounter", "By", (SLOT,), "malloc: free but kept"
)
GC_GENERATIONS = 3
_OF_A_GENERATION = (SLOT, GC_GENERATION)
_OF_THE_COLLECTOR = "in the processes that the slot has had, each since its start"
GC_COLLECTIONS = Metric(
    "cpython.gc.collections",
    "Counter",
    "{collection}",
    _OF_A_GENERATION,
    "Times that the generation was collected, by samples of what runs leave behind too, "
    f"{_OF_THE_COLLECTOR}; by `gc.get_stats()`",
)
GC_COLLECTED = Metric(
    "cpython.gc.collected_objects",
    "Counter",
    "{object}",
    _OF_A_GENERATION,
    f"Objects that were collected, {_OF_THE_COLLECTOR}",
)
GC_UNCOLLECTABLE = Metric(
    "cpython.gc.uncollectable_objects",
    "Counter",
    "{object}",
    _OF_A_GENERATION,
    f"Objects that could not be collected, {_OF_THE_COLLECTOR}. Sent once there are any",
)
GC_METRICS = (GC_COLLECTIONS, GC_COLLECTED, GC_UNCOLLECTABLE)
"""OpenTelemetry's own metrics of CPython, with the slot besides."""
PROCESS_EXITS = Metric(
    "celery.worker.process.exits",
    "Counter",
    "{process}",
    (SLOT, EXIT_REASON),
    "Processes that ended: max_tasks, max_memory, shutdown, autoscale, time_limit, terminated, "
    "oom_kill, killed, exited, crashed",
)
EXITS_REPEATED = Metric(
    "celery.worker.process.exits.repeated",
    "Counter",
    "{process}",
    (TASK_NAME,),
    "Processes that were lost in a run of a message that this worker had lost a process to before: "
    "the broker delivers it again (`acks_late` with `reject_on_worker_lost`, or a visibility "
    "timeout), and it kills again",
)
_BOUNDS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 14_400, 43_200, 86_400)
PROCESS_TASKS = Metric(
    "celery.worker.process.tasks",
    "Histogram",
    "{task}",
    (EXIT_REASON,),
    "Tasks that a child of the pool ran until its end",
    tuple(10**power for power in range(7)),
)
PROCESS_LIFETIME = Metric(
    "celery.worker.process.lifetime",
    "Histogram",
    "s",
    (EXIT_REASON,),
    "From a child's readiness to its end",
    _BOUNDS_S,
)
RECYCLING_GAP = Metric(
    "celery.worker.recycling.gap",
    "Histogram",
    "s",
    (EXIT_REASON,),
    "Time that a slot of the pool had no process: from a child's end to its successor's readiness",
    _BOUNDS_S,
)
RECYCLING_FREED = Metric(
    "celery.worker.recycling.freed",
    "Histogram",
    "By",
    (EXIT_REASON,),
    "RSS of a child at its end less that of its successor at its start",
)
PROCESS_METRICS = (
    MEMORY,
    MEMORY_UNIQUE,
    MEMORY_COPIED,
    DESCENDANTS,
    DESCENDANTS_UNIQUE,
    DESCENDANTS_LEFT_SIZE,
    MEMORY_PROPORTIONAL,
    MEMORY_SWAP,
    MEMORY_VIRTUAL,
    MEMORY_LIMIT,
    LIMIT_UTILIZATION,
    MEMORY_CGROUP,
    MEMORY_CGROUP_SWAP,
    OPEN_FILES,
    OPEN_FILES_LIMIT,
    THREADS,
    MESSAGES,
    MESSAGES_SIZE,
    HEAP_BLOCKS,
    MALLOC_USED,
    MALLOC_FREE,
    *GC_METRICS,
    PROCESS_EXITS,
    EXITS_REPEATED,
    PROCESS_TASKS,
    PROCESS_LIFETIME,
    RECYCLING_GAP,
    RECYCLING_FREED,
)

_OF_A_SITE = (TASK_NAME, SITE_NAME, SITE_WINDOW)
SITE_SIZE_LEVEL = Metric(
    "celery.memory.site.size",
    "Gauge",
    "By",
    _OF_A_SITE,
    "Left alive by a traced run at each of the `sites_top` sites that grow fastest, as in the "
    "last `celery.memory.allocation_site` events",
)
SITE_RATE_LEVEL = Metric(
    "celery.memory.site.rate",
    "Gauge",
    "By/min",
    _OF_A_SITE,
    "Left alive a minute at each of these sites, estimated from all runs of the task; none for "
    "window `partial`",
)
SITE_RUNS_LEVEL = Metric(
    "celery.memory.site.runs",
    "Gauge",
    "{run}",
    _OF_A_SITE,
    "Traced runs, or parts of runs, that the size is a mean of",
)
SITE_METRICS = (SITE_SIZE_LEVEL, SITE_RATE_LEVEL, SITE_RUNS_LEVEL)

_OF_A_LEAK = (TASK_NAME, LEAK_KIND, LEAK_WHERE, LEAK_STATE, SITE_NAME, LEAK_HOLDER)
LEAK_RATE_LEVEL = Metric(
    "celery.memory.leak.rate",
    "Gauge",
    "By/{task}",
    _OF_A_LEAK,
    "What each run of the task leaves behind, while a leak is suspected or leaking; sent of kinds "
    "that are counted in bytes, where it is known by run. The place is the line that allocates it, "
    "the holder what holds it, each absent as long as it is not known",
)
LEAK_ACTIVE = Metric(
    "celery.memory.leak.active",
    "Gauge",
    "{leak}",
    _OF_A_LEAK,
    "1 while a leak is suspected or leaking, then 0 with the state `ended` for as long as it is "
    "remembered; two leaks with the same attributes are added",
)
EXHAUSTION = Metric(
    EXHAUSTION_TIME,
    "Gauge",
    "s",
    (SLOT,),
    "Forecast until the nearest limit is reached, of slot `main` where that is the worker's as a "
    "whole. By what is leaking, and while nothing is, by what is suspected; sent while there is a "
    "forecast",
)
LEAK_METRICS = (LEAK_RATE_LEVEL, LEAK_ACTIVE, EXHAUSTION)
LEAK_PLACES_MAX = 200
"""Most names of places, and most holders, of leaks; later ones become ``_other``."""
LEAK_HOLDER_MAX = 120
"""Most characters of a holder on a metric."""

FRAMES_DROPPED = Metric(
    "celery.memory.frames.dropped",
    "Counter",
    "{frame}",
    (FRAME_KIND,),
    "Frames that did not reach the reporter because a ring was full: ends of tasks (task_end), "
    "which are missing in the measurements, and others (other); and frames that arrived damaged",
)
REPORTER_RESTARTS = Metric(
    "celery.memory.reporter.restarts",
    "Counter",
    "{restart}",
    (),
    "Times the worker started its reporter again",
)
TRACING_OVERHEAD = Metric(
    "celery.memory.tracing.overhead",
    "Gauge",
    "1",
    (),
    "Share of the tasks' CPU time that allocation tracing within the budget and samples of the "
    "allocators' counters cost in the last ten minutes, an upper estimate",
)
TRACING_ABORTED = Metric(
    "celery.memory.tracing.aborted",
    "Counter",
    "{task}",
    (),
    "Runs whose allocation tracing was stopped before their end, as it would have cost too much",
)
PARTS_SWITCHED_OFF = Metric(
    "celery.memory.parts.switched_off",
    "UpDownCounter",
    "{part}",
    (PART, SLOT),
    "Parts of the instrumentation that raised and are switched off in that process until it ends; "
    "`tracing_beside_native_threads` is allocation tracing where gh-128679 could crash it; "
    "`malloc` is glibc's counters where one read of them took 15 ms: they visit each free chunk; "
    "the reporter's `records` and `ticks` continue to run",
)
SELF_METRICS = (
    FRAMES_DROPPED,
    REPORTER_RESTARTS,
    TRACING_OVERHEAD,
    TRACING_ABORTED,
    PARTS_SWITCHED_OFF,
)

METRICS = TASK_METRICS + PROCESS_METRICS + SITE_METRICS + LEAK_METRICS + SELF_METRICS

ALLOCATION_SITE = Event(
    "celery.memory.allocation_site",
    "INFO",
    (
        SITE_RANK,
        SITE_NAME,
        CODE_FILE,
        CODE_LINE,
        CODE_FUNCTION,
        CODE_STACKTRACE,
        TASK_NAME,
        SITE_WINDOW,
        SITE_VIA,
        SITE_WHERE,
        SITE_SIZE,
        SITE_BLOCKS,
        SITE_SIZE_CHANGE,
        SITE_RUNS,
        SITE_RATE,
    ),
    "Every `sites_interval`, one for each of the `sites_top` sites that grow fastest. Window "
    "`complete`: left behind by several runs in a row; `first_run`: alive after a single run, with "
    "nothing to compare it with; `process`: growth of all processes since they were warm; "
    "`partial`: alive when a part of a run had been traced, or after a run that raised. A third "
    "of the places is for windows other than `complete`, where there are any. The line is the "
    "user's own most recent one; `celery.memory.site.via` is the line of a library that it went "
    "through. Where a run of its task keeps far more by the counters than all its lines show, as "
    "memory of C code that Python objects hold, the first line has the rest in its size and rate. "
    "`celery.memory.site.where`: `task`, a `receiver` of Celery's signals, or `idle`, "
    "code outside of runs such as a thread",
)
LEAK = Event(
    "celery.memory.leak",
    "WARN",
    (
        LEAK_STATE,
        LEAK_KIND,
        LEAK_WHERE,
        TASK_NAME,
        LEAK_RATE,
        LEAK_RATE_LOW,
        LEAK_RATE_HIGH,
        LEAK_RUNS,
        LEAK_PROCESSES,
        LEAK_EXPLAINED,
        LEAK_CONDITION,
        LEAK_REASON,
        SITE_NAME,
        SITE_SHARE,
        SITE_VIA,
        CODE_FILE,
        CODE_LINE,
        CODE_FUNCTION,
        LEAK_HOLDER,
        LEAK_TYPES,
        EXHAUSTION_TIME,
        MAX_TASKS_PER_CHILD,
        MAX_MEMORY_PER_CHILD,
    ),
    "A verdict begins, changes or ends: WARN where it is `leaking`, INFO where it is `suspected` "
    "or `ended`. The body is what a person should read. The rate, with what it is at least and at "
    "most, is what a run leaves behind: bytes, or how many of what the kind counts "
    "(`file_descriptors`, `threads`, `messages`). `celery.memory.leak.explained` is the share of "
    "what the processes have grown by that the verdict explains, `celery.memory.site.share` the "
    "share of it that is allocated at the place. `celery.memory.exhaustion.time`, in seconds, is "
    "when the nearest limit is reached; the last two are settings that keep the worker alive until "
    "the leak is fixed",
    calm_severity="INFO",
)
PRESSURE = Event(
    "celery.memory.pressure",
    "WARN",
    (
        LIMIT_KIND,
        LIMIT_SIZE,
        LIMIT_USED,
        SLOT,
        PROCESS_PID,
        PROCESS_RSS,
        PROCESS_RSS_PEAK,
        TASK_NAME,
        TASK_ID,
        TASK_AGE,
        SPAN_RSS_START,
    ),
    "Usage exceeds 90 % of a limit (again after it fell below 80 %); exported at once, one event "
    "for each process of the worker, or for the one process that has the limit",
)
PROCESS_LOST = Event(
    "celery.worker.process_lost",
    "ERROR",
    (
        SLOT,
        PROCESS_PID,
        EXIT_REASON,
        EXIT_SIGNAL,
        EXIT_CODE,
        EXIT_REPEATED,
        PROCESS_RSS,
        PROCESS_RSS_PEAK,
        TASK_NAME,
        TASK_ID,
        TASK_AGE,
        TASK_REDELIVERED,
        SPAN_RSS_START,
        SPAN_RSS_PEAK,
        CGROUP_OOM_KILLS,
        EXIT_RECOVERED,
    ),
    "A process of the worker ended otherwise than by shutdown, recycling or shrinking of the pool; "
    "with the trace and span id in the message of its task in flight, if that trace is sampled. "
    "`celery.worker.exit.code` is the code that it ended with, absent if a signal ended it. "
    "`celery.worker.exit.repeated`: how many processes this worker has lost in runs of the same "
    "message (task id), with this one. `celery.task.redelivered`: the broker says that it had "
    "delivered the message before (not every broker does). `celery.task.memory.rss.peak` is the "
    "highest RSS seen in the run, above its start: the run took at least that much. RSS is read "
    "twice a second, more often near a limit, and what a run takes after the last reading is not "
    "in it; absent if no reading was in the run. After `sys.exit` and SIGTERM it is what the run "
    "itself could still measure",
)
DESCENDANTS_LEFT = Event(
    "celery.worker.descendants_left",
    "WARN",
    (
        SLOT,
        TASK_NAME,
        TASK_ID,
        PROCESS_PID,
        DESCENDANT_NAME,
        DESCENDANT_PROCESSES,
        DESCENDANT_RSS,
        DESCENDANT_UNIQUE,
        DESCENDANT_AGE,
    ),
    "Processes that runs of a task started in a slot still run five seconds after these runs ended "
    "and have 16 MiB together, unique memory where it can be read and RSS otherwise; again "
    "whenever that has doubled. The pid, the name and the task's id are of the largest one",
)
SNAPSHOT = Event(
    "celery.memory.snapshot",
    "INFO",
    (SNAPSHOT_KIND, SNAPSHOT_REASON, SNAPSHOT_SITES, SNAPSHOT_RUNS, SNAPSHOT_SIZE, SNAPSHOT_FILE),
    "A capture is complete",
)
CENSUS = Event(
    "celery.memory.census",
    "INFO",
    (
        SLOT,
        PROCESS_PID,
        TASK_NAME,
        CENSUS_TYPE,
        CENSUS_OBJECTS,
        CENSUS_GROWTH,
        CENSUS_RUNS,
        CENSUS_HOLDER,
        CENSUS_SHARE,
        CENSUS_HOLD,
        CENSUS_PROBLEM,
    ),
    "A census of objects is complete in a process: one for each type that has more objects than "
    "before, with what holds the new ones; or one that no type has, or why it was not taken",
)
EVENTS = (ALLOCATION_SITE, LEAK, PRESSURE, PROCESS_LOST, DESCENDANTS_LEFT, SNAPSHOT, CENSUS)

SPAN_ATTRIBUTES = (
    SpanAttribute(SPAN_RSS_START, "int", "RSS at the task's start"),
    SpanAttribute(SPAN_RSS_DELTA, "int", "RSS at its end less RSS at its start"),
    SpanAttribute(SPAN_RSS_PEAK, "int", "Highest RSS inside it, above its start"),
    SpanAttribute(SPAN_TRACED_DELTA, "int", "Traced memory at its end less that at its start"),
    SpanAttribute(SPAN_TRACED_PEAK, "int", "Highest traced memory inside it, above its start"),
    SpanAttribute(SPAN_EXCLUSIVE, "bool", "Whether it had the process to itself"),
)
