"""The closing summary, from telemetry alone: each task's memory, which task leaks, and where."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from demo.environment import SERVICE_NAME
from demo.numbers import Numbers, TaskRow
from demo.table import HEADINGS, cells, size
from otel_celery_memory import conventions as c

_LEAK_BYTES = 64 * 1024
"""Less than this retained by a run, on average over a short demo, may be chance."""
_SPIKE_BYTES = 16 * 1024 * 1024
_WIDTH = 100


def summary(numbers: Numbers) -> str:
    """The whole summary of what arrived."""
    return "\n".join(
        [
            "",
            *_table(numbers.tasks),
            "",
            *_words_of(numbers.verdict),
            *_verdict(numbers),
            *_others(numbers),
            "",
            f"{numbers.runs} tasks measured, {numbers.recycled} processes recycled, "
            f"{numbers.lost} lost, {numbers.frames_dropped} frames dropped.",
        ]
    )


def names_the_leak(numbers: Numbers) -> bool:
    """Whether the summary would name the task that leaks, and its line."""
    leaking = _leaking(numbers)
    return leaking is not None and any(site.task == leaking.name for site in numbers.sites)


def endpoint_summary(endpoint: str, published: int) -> str:
    """What to look for in the backend that the telemetry was sent to."""
    return f"""
{published} tasks were published, and what they did to memory was sent to {endpoint}.
In its backend, under service.name {SERVICE_NAME}, look for
  {c.HEAP_RETAINED.name}  by {c.TASK_NAME}: one task leaks. Sizes that have
      {c.DIRECTION}=shrink count as negative (celery_task_heap_retained_bytes_sum in Prometheus).
  {c.RSS_PEAK.name}  by {c.TASK_NAME}: another task spikes, and gives it back.
  {c.MEMORY.name}  by {c.SLOT}: children grow until they are recycled.
  {c.LEAK.name}  log events: who leaks, in words.
  {c.ALLOCATION_SITE.name}  log events: {c.SITE_RANK} 1 names the leaking line."""


def _table(tasks: tuple[TaskRow, ...]) -> Iterator[str]:
    rows = [HEADINGS, *map(cells, tasks)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows:
        yield "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
    yield "The peak is the highest above a run's start; the other sizes are means of a run: of all,"
    yield "for retained of a sample by the allocators' counters, for the traced delta of few."


def _words_of(verdict: str) -> Iterator[str]:
    """What `celery inspect memory` begins with, folded."""
    if verdict:
        yield from textwrap.wrap(verdict, _WIDTH, break_long_words=False, break_on_hyphens=False)
        yield ""


def _verdict(numbers: Numbers) -> Iterator[str]:
    leaking = _leaking(numbers)
    if leaking is None:
        # One does: on a busy machine few runs fit into the time, and fewer are sampled.
        yield "Too few runs were sampled to say which task leaks; let it run longer:"
        yield '  make demo ARGS="--seconds 60"'
        for most in numbers.sites[:1]:
            yield f"Most was left alive by {most.task or 'no task'} at {most.place}."
        return
    yield f"{leaking.name} leaks: a run retains {size(leaking.retained_bytes or 0)}."
    site = next((each for each in numbers.sites if each.task == leaking.name), None)
    if site is None:
        yield "  No allocation site of it has arrived."
    else:
        yield f"  {site.place}"
        yield (
            f"  left {size(site.run_bytes)} in {site.blocks} blocks alive in each of {site.runs} "
            "traced runs"
        )


def _others(numbers: Numbers) -> Iterator[str]:
    leaking = _leaking(numbers)
    for task in numbers.tasks:
        if task is leaking:
            continue
        retained = size(task.retained_bytes or 0)
        peak_bytes = task.rss_peak_bytes or 0
        if peak_bytes >= _SPIKE_BYTES:
            yield (
                f"{task.name} spikes: up to {size(peak_bytes)} above its start; a run "
                f"retains {retained}."
            )
        else:
            yield f"{task.name}: a run retains {retained}."


def _leaking(numbers: Numbers) -> TaskRow | None:
    """The task whose runs retain most, where that is much."""
    most = max(numbers.tasks, key=lambda task: task.retained_bytes or 0, default=None)
    return most if most is not None and (most.retained_bytes or 0) >= _LEAK_BYTES else None
