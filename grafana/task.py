"""The Task dashboard: what one task does to memory, run by run, and where in the code."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build

from grafana.frame import OF_TASK, TASK_PAGE, filled, page, task_variable
from grafana.logql import SITE, latest_of_site, of_event
from grafana.names import DIRECTION, EXCLUSIVE, STATE, TASK, series
from grafana.panels import Query, Question, distribution, events, over_time, rows
from grafana.promql import net
from otel_celery_memory import conventions as c

_INTERVAL = "$__rate_interval"
_NONE = "The chosen tasks did not finish in this time."
_UNTRACED = "No run was traced in this time: tracing is off, or its turn has not come."


def task() -> build.Dashboard:
    """What a run retains, takes and peaks at; which lines left it alive."""
    made = page(
        TASK_PAGE,
        "Celery memory / Task",
        "What a task does to memory, run by run, and the lines that left it alive.",
        [task_variable()],
    )
    return filled(
        made,
        _a_run(),
        _sites(),
        _heat("How is what runs retain distributed?", c.RSS_RETAINED, _RETAINED, grow=True),
        _heat("How is what runs take distributed?", c.RSS_DELTA, _DELTA, grow=True),
        _heat("How high do runs peak?", c.RSS_PEAK, _PEAK),
        _traced(),
        _runs(),
        _site_rates(),
        _peaks(),
        _lost(),
    )


_RETAINED = (
    "Growth from one run's start to the next one's start in that process. A leak moves the whole "
    "band up; a few high cells are warm-up."
)
_DELTA = "Growth from a run's start to its end. Dots are runs with a trace: follow one."
_PEAK = "The highest RSS inside a run, above its start. Dots are runs with a trace: follow one."


def _mean(metric: c.Metric) -> str:
    """Net bytes a run: what grew less what shrank, over the number of runs."""
    count = f"sum by ({TASK}) (rate({series(metric)}_count{{{OF_TASK}}}[{_INTERVAL}])) > 0"
    return f"(\n{net(metric, TASK, _INTERVAL, OF_TASK, 'rate')}\n) / ({count})"


def _a_run() -> object:
    return over_time(
        Question(
            "How much does a run retain?",
            "Mean of a run, net. Around zero is healthy; a constant height above zero, hour after "
            "hour, is a leak of that much a run.",
            "bytes",
            _NONE,
        ),
        [Query(_mean(c.RSS_RETAINED), f"{{{{{TASK}}}}}")],
    )


def _sites() -> object:
    attributes = {
        "Left a run": (c.SITE_SIZE, "bytes"),
        "Change": (c.SITE_SIZE_CHANGE, "bytes"),
        "A minute": (c.SITE_RATE, "bytes"),
        "Runs traced": (c.SITE_RUNS, "short"),
    }
    return rows(
        Question(
            "Which lines left memory alive?",
            "From traced runs: what each place left alive a run, how that changed since the event "
            "before, and the estimate for all runs. Evidence, not a verdict: a cache that fills "
            "up is here too.",
            "bytes",
            _UNTRACED,
        ),
        {
            title: (Query(latest_of_site(attribute)), unit)
            for title, (attribute, unit) in attributes.items()
        },
        key=SITE,
        key_title="Place",
        from_loki=True,
    )


def _heat(title: str, metric: c.Metric, description: str, *, grow: bool = False) -> object:
    matchers = f'{OF_TASK}, {DIRECTION}="{c.GROW}"' if grow else OF_TASK
    buckets = f"{series(metric)}_bucket{{{matchers}}}"
    return distribution(
        Question(title, description, "bytes", _NONE),
        Query(f"sum by (le) (increase({buckets}[{_INTERVAL}]))", "{{le}}", exemplars=True),
    )


def _traced() -> object:
    return over_time(
        Question(
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


def _peaks() -> object:
    def mean(metric: c.Metric) -> str:
        total, count = (
            f"sum by ({TASK}) (rate({series(metric)}_{part}{{{OF_TASK}}}[{_INTERVAL}]))"
            for part in ("sum", "count")
        )
        return f"{total} / ({count} > 0)"

    return over_time(
        Question(
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


def _runs() -> object:
    rate = f"rate({series(c.MEASURED)}{{{OF_TASK}}}[{_INTERVAL}])"
    return over_time(
        Question(
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


def _site_rates() -> object:
    return over_time(
        Question(
            "Which lines grow, over time?",
            "Bytes a minute that each place is estimated to leave behind, from the events.",
            "bytes",
            _UNTRACED,
        ),
        [Query(f"topk(10, {latest_of_site(c.SITE_RATE)})", f"{{{{{SITE}}}}}")],
        from_loki=True,
    )


def _lost() -> object:
    return events(
        Question(
            "Which processes were lost while they ran it?",
            "One event each, with the reason and the size last seen.",
            "none",
            "No process was lost while it ran the chosen tasks.",
        ),
        Query(of_event(c.PROCESS_LOST.name, task=True)),
        width=12,
    )
