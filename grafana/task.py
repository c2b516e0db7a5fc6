"""The Task dashboard: memory of one task, run by run, and the lines that allocate it."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build

from grafana import ids
from grafana.event_queries import Events, OfTask
from grafana.frame import INSTANCE, OF_TASK, TASKS, page
from grafana.leaks import leaks
from grafana.names import DIRECTION, EXCLUSIVE, SITE, STATE, TASK, WINDOW, series
from grafana.panels import Panel, Query, Question, distribution, events, over_time, rows
from grafana.promql import net
from grafana.stores import EventStore
from otel_celery_memory import conventions as c

_INTERVAL = "$__rate_interval"
# With tracing always on, sites of whole processes have no task.
_OF_TASK_OR_NONE = f'{INSTANCE}, {TASK}=~"$task|"'
_SITE_RATE = f"{series(c.SITE_RATE_LEVEL)}{{{_OF_TASK_OR_NONE}}}"
_NONE = "The chosen tasks did not finish in this time."
_UNTRACED = "No run was traced in this time: tracing is off, or no run was picked yet."
_TAKEN = Question(
    ids.TASK_DELTA_SPREAD,
    "How much do single runs take?",
    "Growth from a run's start to its end. A dot is a run with a trace: click it.",
    "bytes",
    _NONE,
)
_PEAKS = Question(
    ids.TASK_PEAK_SPREAD,
    "How high do runs peak?",
    "The highest RSS inside a run, above its start. A dot is a run with a trace: click it.",
    "bytes",
    _NONE,
)


def task(store: EventStore) -> build.Dashboard:
    """What a run retains, takes and peaks at, and which lines allocated it."""
    return page(
        store,
        ids.TASK_PAGE,
        "Celery memory / Task",
        "Whether a task leaks, its memory run by run, and the lines that left it alive.",
        [
            *leaks((ids.TASK_LEAKS, ids.TASK_EXHAUSTION, ids.TASK_LEAK_RATES), OF_TASK),
            _a_run(),
            _site_rates(),
            _sites(),
            _heat(_TAKEN, c.RSS_DELTA, grow=True),
            _heat(_PEAKS, c.RSS_PEAK),
            _left_behind(),
            _traced(),
            _peaks(),
            _runs(),
            _lost(store),
            _site_events(store),
        ],
        [TASKS],
    )


def _mean(metric: c.Metric) -> str:
    """Net bytes a run: growth less shrinkage, divided by the number of runs."""
    no_warm_up = f'{OF_TASK}, {DIRECTION}!="{c.WARM_UP}"'
    count = f"sum by ({TASK}) (rate({series(metric)}_count{{{no_warm_up}}}[{_INTERVAL}])) > 0"
    return f"(\n{net(metric, TASK, _INTERVAL, OF_TASK, 'rate')}\n) / ({count})"


def _a_run() -> Panel:
    return over_time(
        Question(
            ids.TASK_RETAINED,
            "How much does a run retain?",
            "Mean of the sampled runs by the allocators' counters, net. Around zero is healthy. A "
            "constant value above zero, hour after "
            "hour, is a leak of that much a run.",
            "bytes",
            _NONE,
        ),
        [Query(_mean(c.HEAP_RETAINED), f"{{{{{TASK}}}}}")],
    )


def _left_behind() -> Panel:
    others = (
        (c.BLOCKS_RETAINED, "blocks"),
        (c.OPEN_FILES_RETAINED, "descriptors"),
        (c.THREADS_RETAINED, "threads"),
        (c.HEAP_GARBAGE, "garbage, bytes"),
    )
    no_warm_up = f'{OF_TASK}, {DIRECTION}!="{c.WARM_UP}"'
    sampled = f"{series(c.HEAP_RETAINED)}_count{{{no_warm_up}}}"
    count = f"sum by ({TASK}) (rate({sampled}[{_INTERVAL}])) > 0"
    return over_time(
        Question(
            ids.TASK_LEFT_BEHIND,
            "What else does a run leave behind?",
            "Blocks of the interpreter, descriptors and threads that a run left behind, and the "
            "cyclic garbage that the collector freed after it, which is no leak: means of the "
            "sampled runs, net.",
            "short",
            _NONE,
        ),
        [
            Query(
                f"(\n{net(metric, TASK, _INTERVAL, OF_TASK, 'rate')}\n) / ({count})",
                f"{what} {{{{{TASK}}}}}",
            )
            for metric, what in others
        ],
    )


def _sites() -> Panel:
    """Over workers, the maximum of what a run left at a place, and the sum of runs."""
    by = f"{TASK}, {SITE}, {WINDOW}"
    size = f"{series(c.SITE_SIZE_LEVEL)}{{{_OF_TASK_OR_NONE}}}"
    before = f"max by ({by}) ({size} offset $__range) or 0 * max by ({by}) ({size})"
    columns = {
        "Left a run": (f"max by ({by}) ({size})", "bytes"),
        "Change": (f"max by ({by}) ({size}) - ({before})", "bytes"),
        "A minute": (f"sum by ({by}) ({_SITE_RATE})", "bytes"),
        "Runs traced": (
            f"sum by ({by}) ({series(c.SITE_RUNS_LEVEL)}{{{_OF_TASK_OR_NONE}}})",
            "short",
        ),
    }
    return rows(
        Question(
            ids.TASK_SITES,
            "Which lines left memory alive?",
            "The last ranking of traced runs: what each place left alive a run, how that changed "
            "within the time shown, and the estimate for all runs. It is evidence, not a verdict: "
            "a cache that fills up shows here too. A place without a task is of whole processes: "
            "there the first number is the growth since they were warm.",
            "bytes",
            _UNTRACED,
        ),
        {title: (Query(expression), unit) for title, (expression, unit) in columns.items()},
        keys={SITE: "Place", TASK: "Task", WINDOW: "Seen in"},
        width=24,
    )


def _heat(question: Question, metric: c.Metric, *, grow: bool = False) -> Panel:
    matchers = f'{OF_TASK}, {DIRECTION}="{c.GROW}"' if grow else OF_TASK
    buckets = f"{series(metric)}_bucket{{{matchers}}}"
    return distribution(
        question,
        Query(f"sum by (le) (increase({buckets}[{_INTERVAL}]))", "{{le}}", exemplars=True),
    )


def _traced() -> Panel:
    return over_time(
        Question(
            ids.TASK_TRACED,
            "Is it Python's own memory?",
            "Net growth a run, from RSS and from tracemalloc. If both grow, it is Python objects, "
            "and the lines show where. If RSS alone grows, it is native code, or memory that "
            "malloc keeps.",
            "bytes",
            _NONE,
        ),
        [
            Query(_mean(c.RSS_DELTA), f"RSS {{{{{TASK}}}}}"),
            Query(_mean(c.TRACED_DELTA), f"traced {{{{{TASK}}}}}"),
        ],
    )


def _peaks() -> Panel:
    def mean(metric: c.Metric) -> str:
        total, count = (
            f"sum by ({TASK}) (rate({series(metric)}_{part}{{{OF_TASK}}}[{_INTERVAL}]))"
            for part in ("sum", "count")
        )
        return f"{total} / ({count} > 0)"

    return over_time(
        Question(
            ids.TASK_PEAKS,
            "How much of its peak is Python's own?",
            "Mean peak of a run above its start, from RSS and from tracemalloc. A worker needs "
            "this much for the task, on top of what it uses at rest, and for the processes that "
            "the run started, where it started some.",
            "bytes",
            _NONE,
        ),
        [
            Query(mean(c.RSS_PEAK), f"RSS {{{{{TASK}}}}}"),
            Query(mean(c.TRACED_PEAK), f"traced {{{{{TASK}}}}}"),
            Query(mean(c.TREE_PEAK), f"with its processes {{{{{TASK}}}}}"),
        ],
    )


def _runs() -> Panel:
    rate = f"rate({series(c.MEASURED)}{{{OF_TASK}}}[{_INTERVAL}])"
    return over_time(
        Question(
            ids.TASK_RUNS,
            "How often does it run, and how does it end?",
            "Runs a second by state. Runs that overlapped others (exclusive false) are counted, "
            "but are not in the distributions.",
            "ops",
            _NONE,
        ),
        [
            Query(
                f"sum by ({STATE}, {EXCLUSIVE}) ({rate})",
                f"{{{{{STATE}}}}}, exclusive {{{{{EXCLUSIVE}}}}}",
            )
        ],
    )


def _site_rates() -> Panel:
    # Growth of runs is also in the growth of their process: the larger, not the sum.
    rate = f"max by ({SITE}) (sum by ({SITE}, {WINDOW}) ({_SITE_RATE}))"
    return over_time(
        Question(
            ids.TASK_SITE_RATES,
            "Which lines grow, over time?",
            "Estimated bytes a minute that each place leaves behind, in all workers together. A "
            "line ends when its place leaves the ranking.",
            "bytes",
            _UNTRACED,
        ),
        [Query(f"topk(10, {rate})", f"{{{{{SITE}}}}}")],
    )


def _site_events(store: EventStore) -> Panel:
    return events(
        Question(
            ids.TASK_SITE_EVENTS,
            "Which events name these lines?",
            "One event for each place and ranking, with its numbers. If more than one frame is "
            "traced, it has the stack too: open an event to see it.",
            "none",
            _UNTRACED,
        ),
        store,
        Events((c.ALLOCATION_SITE.name,), OfTask.CHOSEN_OR_NONE),
    )


def _lost(store: EventStore) -> Panel:
    return events(
        Question(
            ids.TASK_LOST,
            "Which processes were lost while they ran it?",
            "One event for each, with the reason and the last known size.",
            "none",
            "No process was lost while it ran the chosen tasks.",
        ),
        store,
        Events((c.PROCESS_LOST.name,), OfTask.CHOSEN),
        width=12,
    )
