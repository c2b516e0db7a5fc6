"""The Task dashboard: what one task does to memory, run by run, and where in the code."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build

from grafana import ids
from grafana.event_queries import Events, OfTask
from grafana.frame import INSTANCE, OF_TASK, TASKS, page
from grafana.names import DIRECTION, EXCLUSIVE, SITE, STATE, TASK, WINDOW, series
from grafana.panels import Panel, Query, Question, distribution, events, over_time, rows
from grafana.promql import net
from grafana.stores import EventStore
from otel_celery_memory import conventions as c

_INTERVAL = "$__rate_interval"
# Tracing that is always on sees what a process as a whole has grown by, and knows no task of it.
_OF_TASK_OR_NONE = f'{INSTANCE}, {TASK}=~"$task|"'
_SITE_RATE = f"{series(c.SITE_RATE_LEVEL)}{{{_OF_TASK_OR_NONE}}}"
_NONE = "The chosen tasks did not finish in this time."
_UNTRACED = "No run was traced in this time: tracing is off, or its turn has not come."
_RETAINED = Question(
    ids.TASK_RETAINED_SPREAD,
    "How is what runs retain distributed?",
    "Growth from one run's start to the next one's start in that process. A leak moves the whole "
    "band up; a few high cells are warm-up.",
    "bytes",
    _NONE,
)
_TAKEN = Question(
    ids.TASK_DELTA_SPREAD,
    "How is what runs take distributed?",
    "Growth from a run's start to its end. Dots are runs with a trace: follow one.",
    "bytes",
    _NONE,
)
_PEAKS = Question(
    ids.TASK_PEAK_SPREAD,
    "How high do runs peak?",
    "The highest RSS inside a run, above its start. Dots are runs with a trace: follow one.",
    "bytes",
    _NONE,
)


def task(store: EventStore) -> build.Dashboard:
    """What a run retains, takes and peaks at; which lines left it alive."""
    return page(
        store,
        ids.TASK_PAGE,
        "Celery memory / Task",
        "What a task does to memory, run by run, and the lines that left it alive.",
        [
            _a_run(),
            _site_rates(),
            _sites(),
            _heat(_RETAINED, c.RSS_RETAINED, grow=True),
            _heat(_TAKEN, c.RSS_DELTA, grow=True),
            _heat(_PEAKS, c.RSS_PEAK),
            _traced(),
            _peaks(),
            _runs(),
            _lost(store),
            _site_events(store),
        ],
        [TASKS],
    )


def _mean(metric: c.Metric) -> str:
    """Net bytes a run: what grew less what shrank, over the number of runs."""
    count = f"sum by ({TASK}) (rate({series(metric)}_count{{{OF_TASK}}}[{_INTERVAL}])) > 0"
    return f"(\n{net(metric, TASK, _INTERVAL, OF_TASK, 'rate')}\n) / ({count})"


def _a_run() -> Panel:
    return over_time(
        Question(
            ids.TASK_RETAINED,
            "How much does a run retain?",
            "Mean of a run, net. Around zero is healthy; a constant height above zero, hour after "
            "hour, is a leak of that much a run.",
            "bytes",
            _NONE,
        ),
        [Query(_mean(c.RSS_RETAINED), f"{{{{{TASK}}}}}")],
    )


def _sites() -> Panel:
    """Of a place that several workers tell: the most that one saw a run leave, and all runs."""
    by = f"{TASK}, {SITE}, {WINDOW}"
    size = f"{series(c.SITE_SIZE_LEVEL)}{{{_OF_TASK_OR_NONE}}}"
    before = f"max by ({by}) ({size} offset $__range) or 0 * max by ({by}) ({size})"
    asked = {
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
            "From traced runs, as told last: what each place left alive a run, how that changed "
            "within the time shown, and the estimate for all runs. Evidence, not a verdict: a "
            "cache that fills up is here too. A place without a task was seen in processes as a "
            "whole: there the first number is all that grew since they were warm.",
            "bytes",
            _UNTRACED,
        ),
        {title: (Query(expression), unit) for title, (expression, unit) in asked.items()},
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
            "Net a run, from RSS and from tracemalloc. Both alike: Python objects, and the lines "
            "tell where. RSS alone: native code, or memory that malloc keeps.",
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
            "Mean peak of a run above its start, from RSS and from tracemalloc. What a worker "
            "needs for this task beside what it has at rest.",
            "bytes",
            _NONE,
        ),
        [
            Query(mean(c.RSS_PEAK), f"RSS {{{{{TASK}}}}}"),
            Query(mean(c.TRACED_PEAK), f"traced {{{{{TASK}}}}}"),
        ],
    )


def _runs() -> Panel:
    rate = f"rate({series(c.MEASURED)}{{{OF_TASK}}}[{_INTERVAL}])"
    return over_time(
        Question(
            ids.TASK_RUNS,
            "How often does it run, and how does it end?",
            "Runs a second by state. Runs that overlapped others (exclusive false) are counted "
            "and kept out of the distributions.",
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
    # What runs leave behind is in what their process grows by: the larger, not both.
    rate = f"max by ({SITE}) (sum by ({SITE}, {WINDOW}) ({_SITE_RATE}))"
    return over_time(
        Question(
            ids.TASK_SITE_RATES,
            "Which lines grow, over time?",
            "Bytes a minute that each place is estimated to leave behind, in all workers together. "
            "A line ends where its place is no longer among those told.",
            "bytes",
            _UNTRACED,
        ),
        [Query(f"topk(10, {rate})", f"{{{{{SITE}}}}}")],
    )


def _site_events(store: EventStore) -> Panel:
    return events(
        Question(
            ids.TASK_SITE_EVENTS,
            "What was told of these lines?",
            "One event for each place and ranking, with its numbers and, where more than one "
            "frame is kept, the stack that led there: open an event to see it.",
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
            "One event each, with the reason and the size last seen.",
            "none",
            "No process was lost while it ran the chosen tasks.",
        ),
        store,
        Events((c.PROCESS_LOST.name,), OfTask.CHOSEN),
        width=12,
    )
