"""Runs a task as often as a test asks for, and says in words whether it leaks."""

from __future__ import annotations

import gc
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery import states
from kombu import serialization

from otel_celery_memory.leaks.conclusion import (
    Evidence,
    FoundSite,
    Growing,
    TaskFacts,
    conclude,
)
from otel_celery_memory.leaks.resource import Resource
from otel_celery_memory.leaks.verdict import Holder, Verdict, Where
from otel_celery_memory.leaks.words import sentences
from otel_celery_memory.testing.decision import STEP_S, growing, plan
from otel_celery_memory.testing.errors import NotMeasuredError
from otel_celery_memory.testing.evidence import TRACED_RUNS, find_holder, find_sites
from otel_celery_memory.testing.levels import Levels
from otel_celery_memory.testing.process import Counter, Ended, Tell, call_in_fork

_EVIDENCE_SHARE = 0.5
"""Of the time that is left after the runs: for each of two looks at where it leaks."""
_ADVICE = (
    "If it is a cache that has not been full after {runs} runs, give it more: "
    "assert_no_leak(…, runs={more})."
)

_HERE = str(Path(__file__).parent)
_dumps: Callable[..., Any] = serialization.dumps
_loads: Callable[..., Any] = serialization.loads

Raises = type[BaseException] | tuple[type[BaseException], ...]


class _RaisedError(Exception):
    """A run has raised what it may not; the message has its traceback."""


def judge(
    task: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    runs: int,
    timeout_s: float,
    raises: Raises,
    set_up: Callable[[], object] | None,
) -> str:
    """The verdicts in words, one a line; empty if it does not leak.

    Raises `NotMeasuredError` as `assert_no_leak` says.
    """
    __tracebackhide__ = True
    run = _Run(task, args, kwargs, raises)
    deadline_s = time.monotonic() + timeout_s

    def measure(tell: Tell) -> None:
        judged = False
        try:
            if set_up is not None:
                _call(set_up)
            for leaks in _measure(run, runs, deadline_s):
                tell(json.dumps({"leaks": leaks}).encode())
                judged = True
        except _RaisedError as why:
            if not judged:
                tell(json.dumps({"raised": str(why)}).encode())

    ended = call_in_fork(measure, timeout_s)
    if ended.output:
        sys.stdout.write(ended.output)
    if ended.result is None:
        raise NotMeasuredError(_how_it_ended(run, ended, runs, timeout_s))
    answer = json.loads(ended.result)
    if "raised" in answer:
        raise NotMeasuredError(answer["raised"])
    return str(answer["leaks"])


class _Run:
    """One run after the other, each with arguments as a worker gets them."""

    def __init__(
        self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], raises: Raises
    ) -> None:
        __tracebackhide__ = True
        self.name = str(task.name)
        self.started = Counter()
        self._task = task
        self._raises = raises
        serializer = getattr(task, "serializer", None) or task.app.conf.task_serializer
        try:
            self._type, self._encoding, self._body = _dumps((tuple(args), dict(kwargs)), serializer)
            self._arguments()
        except Exception as error:
            raise NotMeasuredError(
                f"the arguments of {self.name} cannot be sent to a worker: its serializer "
                f"({serializer}) says {type(error).__name__}: {error}"
            ) from None

    @property
    def source(self) -> str:
        """The file that the task's function is in; empty if that is not known."""
        code = getattr(getattr(self._task, "run", None), "__code__", None)
        return getattr(code, "co_filename", "")

    def __call__(self) -> None:
        """Runs the task once; raises `_RaisedError` for what it may not raise."""
        self.started.count()
        args, kwargs = self._arguments()
        try:
            result = self._task.apply(args, kwargs, throw=False)
        except BaseException as error:
            self._raised(error, traceback.format_exc())
            return
        if result.state == states.FAILURE:
            self._raised(result.result, str(result.traceback or ""))

    def _arguments(self) -> tuple[list[Any], dict[str, Any]]:
        args, kwargs = _loads(self._body, self._type, self._encoding, accept={self._type})
        return args, kwargs

    def _raised(self, error: BaseException, stack: str) -> None:
        if isinstance(error, self._raises):
            return
        what = f"{self.name} raised {type(error).__name__} in run {self.started.value}: {error}"
        raise _RaisedError(f"{what}\n{stack.rstrip()}")


def _call(set_up: Callable[[], object]) -> None:
    try:
        set_up()
    except BaseException as error:
        stack = traceback.format_exc().rstrip()
        raise _RaisedError(f"set_up raised {type(error).__name__}: {error}\n{stack}") from None


def _measure(run: _Run, runs: int, deadline_s: float) -> Iterator[str]:
    """The verdicts in words; if it leaks once more, with place and holder, as far as found."""
    warm_up, steps, runs_each = plan(runs)
    # What is there before is set aside: a collection then takes what the runs have made alone.
    gc.collect()
    gc.freeze()
    levels = Levels(steps + 1)
    for _ in range(warm_up):
        run()
    levels.read()
    for _ in range(steps):
        for _ in range(runs_each):
            run()
        levels.read()
    found = growing(levels.series(), runs_each)
    if not found:
        yield ""
        return

    def at_run(time_s: float) -> str:
        return f"run {warm_up + round(time_s / STEP_S) * runs_each}"

    def words(facts: TaskFacts) -> str:
        verdicts = conclude(Evidence(steps * STEP_S, found, (facts,)))
        told = [sentences(_of_the_task(growth, each, facts), at_run) for growth, each in verdicts]
        return "\n".join([*told, _ADVICE.format(runs=runs, more=10 * runs)])

    # Before it is looked for where: that takes time, which may be up in the midst of a run.
    yield words(_facts(run, found))
    if any(each.resource == Resource.HEAP for each in found):
        gc.unfreeze()
        now_s = time.monotonic()
        part_s = (deadline_s - now_s) * _EVIDENCE_SHARE / 2
        holder = find_holder(run, now_s + part_s)
        yield words(_facts(run, found, holder))
        yield words(_facts(run, found, holder, find_sites(run, now_s + 2 * part_s, run.source)))


def _facts(
    run: _Run,
    found: Sequence[Growing],
    holder: Holder | None = None,
    sites: tuple[FoundSite, ...] | None = None,
) -> TaskFacts:
    """What is known of the task: how much a run keeps, and where; ``None`` is not looked for."""
    by_resource = {each.resource: each for each in found}
    heap, other = by_resource.get(Resource.HEAP), by_resource.get(Resource.OTHER)
    return TaskFacts(
        run.name,
        max(each.runs for each in found),
        None if heap is None else heap.per_run,
        things=tuple(
            (resource, each.per_run.middle)
            for resource, each in by_resource.items()
            if resource in (Resource.OPEN_FILES, Resource.THREADS) and each.per_run is not None
        ),
        other=None if other is None else other.per_run,
        # Native is what no line of Python leaves behind, though all runs were traced.
        traced_runs=0 if sites is None else TRACED_RUNS,
        collects=gc.isenabled(),
        sites=sites or (),
        holder=holder,
    )


def _of_the_task(growth: Growing, verdict: Verdict, facts: TaskFacts) -> Verdict:
    """Nothing else ran in the process: what has grown is the task's, by each run.

    A line's share is of what all lines leave: blocks are counted at their mean size.
    """
    rate, place = verdict.rate or growth.per_run, verdict.place
    if place is not None:
        found = sum(site.bytes_per_run for site in facts.sites)
        place = replace(place, share=facts.sites[0].bytes_per_run / found)
    return replace(verdict, where=Where.TASK, task=facts.name, rate=rate, place=place, reasons=())


def _how_it_ended(run: _Run, ended: Ended, runs: int, timeout_s: float) -> str:
    where = f"in run {run.started.value} of {runs}"
    if run.started.value == 0:
        where = "before its first run"
    if ended.late:
        text = f"{run.name} was not through after {timeout_s:g} s, {where}"
        text += ": if it does not hang, ask for fewer runs or a larger timeout_s"
        return "\n".join(filter(None, (text, _above_ours(ended.stack))))
    if ended.status < 0:
        name = signal.Signals(-ended.status).name
        text = f"{run.name}: its process was ended by {name} {where}"
    else:
        text = f"{run.name} ended its process with exit code {ended.status} {where}"
    return "\n".join(filter(None, (text, _above_ours(ended.stack))))


def _above_ours(stack: str) -> str:
    """The frames that the task has called: those of the tests below it say nothing."""
    lines = stack.rstrip().splitlines()
    below = next((at for at, line in enumerate(lines) if f'"{_HERE}' in line), len(lines))
    return "\n".join(lines[:below])
