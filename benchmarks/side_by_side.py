"""Contenders side by side on each workload: CPU, latency and memory as ratios to a bare worker.

Each has a worker with one child. In each round all of them run a batch of the workload, in an order
of the round's own. `bare again` is a second worker without instrumentation: how far it is from
`bare` is the noise of the table.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.batches import Batch, BenchWorker, Memory, bench_worker
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.outputs import Outputs, PushReceiver, collected, in_a_line
from benchmarks.progress import Progress
from benchmarks.statistics import Ratio, noise, percentile, ratio_of
from benchmarks.workloads import WORKLOADS, Workload
from demo.receiver import Receiver
from tests.redis_server import running_redis

BARE, BARE_AGAIN = "bare", "bare_again"
WARM_UP = 1
MEMORY_AFTER = "mix"
"""The workload after which memory is read: before a million objects were alive."""
_LEAST_TASKS = 10


@dataclass(frozen=True)
class Effort:
    """How long each workload is measured: until 1 % can be told, or for so many rounds or seconds.

    A round that has begun is completed, and as many as ``least_rounds`` are done in any case.
    ``scale`` is how large batches are, in parts of the usual one.
    """

    least_rounds: int
    most_rounds: int
    seconds: float
    scale: float = 1.0
    starts: int = 1
    """Of all the workers: even equal processes differ by the layout of their memory."""
    short: bool = False
    """Whether what takes minutes is left out on most workloads."""


SHORT = Effort(2, 20, 35.0, 0.3, short=True)
FULL = Effort(10, 30, 900.0, starts=4)

Rounds = dict[int, Batch]
"""The batches of a contender, by the number of the round."""


@dataclass
class Found:
    """What was measured, by workload and contender."""

    batches: dict[str, dict[str, Rounds]] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    collected: dict[str, dict[str, int]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


def measured(
    effort: Effort,
    progress: Progress,
    contenders: Sequence[str] = tuple(CONTENDERS),
    workloads: Sequence[str] = tuple(WORKLOADS),
) -> dict[str, Any]:
    """Measures all that can be run, and what came of each contender as plain values."""
    why_not = {name: CONTENDERS[name].missing() for name in contenders}
    found = Found(broken={name: why for name, why in why_not.items() if why})
    for start in range(effort.starts):
        run = [CONTENDERS[name] for name in contenders if name not in found.broken]
        _start(start, run, workloads, effort, found, progress)
    return as_json(found, contenders)


def _start(
    start: int,
    run: Sequence[Contender],
    workloads: Sequence[str],
    effort: Effort,
    found: Found,
    progress: Progress,
) -> None:
    """Starts a worker of each, measures all workloads, and stops them."""
    progress.say(f"starting {len(run)} workers")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(running_redis(directory))
        outputs = {each.name: _outputs(stack, directory / each.name) for each in run}
        workers = {
            each.name: stack.enter_context(
                bench_worker(
                    *(each.name, each.name, url, outputs[each.name].directory),
                    outputs[each.name].environ(each),
                )
            )
            for each in run
        }
        for name in workloads:
            _run(WORKLOADS[name], workers, effort, start, found, progress)
            if name == MEMORY_AFTER or MEMORY_AFTER not in workloads:
                found.memory |= {each: worker.memory() for each, worker in workers.items()}
        progress.say("stopping the workers")
        for name, worker in workers.items():
            _stop(name, worker, found)
        time.sleep(1)
        found.collected = {each.name: collected(each, outputs[each.name]) for each in run}


def _stop(name: str, worker: BenchWorker, found: Found) -> None:
    try:
        worker.stop()
    except Exception as error:  # what it collected is told all the same
        found.broken[name] = f"did not stop: {in_a_line(error)}"


def _outputs(stack: ExitStack, directory: Path) -> Outputs:
    directory.mkdir()
    otlp, push = stack.enter_context(Receiver()), stack.enter_context(PushReceiver())
    return Outputs(directory, otlp, push)


def _run(
    workload: Workload,
    workers: dict[str, BenchWorker],
    effort: Effort,
    start: int,
    found: Found,
    progress: Progress,
) -> None:
    """All rounds of a workload; a worker that breaks is left out from then on."""
    batches = found.batches.setdefault(workload.name, {})
    for name in list(workers):
        if workload.before:
            _batch(workload, (workload.before,), 1, name, workers, found)
    until_s = time.monotonic() + effort.seconds
    for number in range(-WARM_UP, effort.most_rounds):
        progress.step(f"{workload.label}, round {number + 1}")
        of_round: dict[str, Batch] = {}
        # In a different order each round.
        for name in random.sample(list(workers), len(workers)):
            contender = CONTENDERS[name]
            if not contender.takes_part(workload.name, number, effort.short):
                continue
            count = _count(workload, contender, effort, number)
            batch = _batch(workload, workload.tasks, count, name, workers, found)
            if batch is not None:
                of_round[name] = batch
        for name in batches.keys() - workers.keys():
            # What broke has no figures: it has not run as many as the others.
            del batches[name]
        if number >= 0:
            for name, batch in of_round.items():
                batches.setdefault(name, {})[start * effort.most_rounds + number] = batch
            told = time.monotonic() >= until_s or _tells(batches)
            if number + 1 >= effort.least_rounds and told:
                break
    for name in list(workers):
        if workload.after:
            _batch(workload, (workload.after,), 1, name, workers, found)


def _count(workload: Workload, contender: Contender, effort: Effort, number: int) -> int:
    """How many tasks its batch has in this round."""
    if contender.tasks:
        return contender.tasks if number >= 0 else 1
    return max(round(workload.batch * effort.scale * contender.share), _LEAST_TASKS)


def _batch(
    workload: Workload,
    tasks: Sequence[str],
    count: int,
    name: str,
    workers: dict[str, BenchWorker],
    found: Found,
) -> Batch | None:
    try:
        return workers[name].batch(tasks, count)
    except Exception as error:
        if name in (BARE, BARE_AGAIN):
            raise
        found.broken[name] = f"broke at {workload.label}: {in_a_line(error)}"
        del workers[name]
        return None


def _tells(batches: Mapping[str, Rounds]) -> bool:
    """Whether each contender's ratio is known well enough."""
    bare = batches[BARE]
    return all(
        _ratio(each, bare).tells
        for name, each in batches.items()
        if name != BARE and CONTENDERS[name].rounds is None
    )


def _ratio(batches: Rounds, bare: Rounds) -> Ratio:
    return ratio_of([(batch.total_s, bare[number].total_s) for number, batch in batches.items()])


def as_json(found: Found, contenders: Sequence[str]) -> dict[str, Any]:
    """Figures, what was collected, and what was not run and why."""
    return {
        "contenders": {name: _of_contender(CONTENDERS[name], found) for name in contenders},
        "workloads": {
            name: _of_workload(WORKLOADS[name], batches) for name, batches in found.batches.items()
        },
    }


def _of_contender(contender: Contender, found: Found) -> dict[str, Any]:
    got = found.collected.get(contender.name, {})
    memory = found.memory.get(contender.name)
    return {
        "label": contender.label,
        "configured": contender.configured,
        "versions": contender.versions() if not contender.missing() else {},
        "not_run": found.broken.get(contender.name, ""),
        "collected": got,
        "lacks": contender.lacks(got) if contender.name in found.collected else "",
        "memory": None if memory is None else vars(memory),
    }


def _of_workload(workload: Workload, batches: Mapping[str, Rounds]) -> dict[str, Any]:
    bare = batches[BARE]
    told = {name: _figures(each, bare) for name, each in batches.items()}
    again = batches.get(BARE_AGAIN)
    return {
        "label": workload.label,
        "rounds": len(bare),
        "noise": noise(_ratio(again, bare)) if again else "no second bare worker: noise unknown",
        "figures": told,
    }


def _figures(rounds: Rounds, all_bare: Rounds) -> dict[str, float]:
    ratio = _ratio(rounds, all_bare)
    batches, bare = list(rounds.values()), [all_bare[number] for number in rounds]
    runs_s = [run_s for batch in batches for run_s in batch.runs_s]
    own = sum(batch.total_s for batch in batches) / len(batches)
    of_bare = sum(batch.total_s for batch in bare) / len(bare)
    return {
        "cpu_ratio": ratio.value,
        "low": ratio.low,
        "high": ratio.high,
        "cpu_us": own * 1e6,
        "added_us": (own - of_bare) * 1e6,
        "reporter_us": sum(batch.cpu_s["reporter"] for batch in batches) / len(batches) * 1e6,
        "p50_us": percentile(runs_s, 0.5) * 1e6,
        "p99_us": percentile(runs_s, 0.99) * 1e6,
        "longest_us": max(runs_s) * 1e6,
        "rounds": len(batches),
        "runs": len(runs_s),
    }


def table(told: Mapping[str, Any]) -> str:
    """For people: a row of each contender, a column of each workload."""
    workloads = told["workloads"]
    lines = ["CPU of the whole worker a task, as a ratio to bare (95 % interval)"]
    width = max(len(each["label"]) for each in told["contenders"].values())
    lines.append(" " * (width + 2) + "".join(f"{name:>24}" for name in workloads))
    for name, contender in told["contenders"].items():
        if contender["not_run"] and not any(name in w["figures"] for w in workloads.values()):
            lines.append(f"  {contender['label']:{width}}  NOT RUN: {contender['not_run']}")
            continue
        cells = [
            f"{f['cpu_ratio']:.3f} ({f['low']:.3f}-{f['high']:.3f})" if f else "-"
            for f in (each["figures"].get(name) for each in workloads.values())
        ]
        lines.append(f"  {contender['label']:{width}}" + "".join(f"{cell:>24}" for cell in cells))
    lines += [f"  {each['label']}: {each['noise']}" for each in workloads.values()]
    lines.append("What arrived of each:")
    for contender in told["contenders"].values():
        got = ", ".join(f"{count:,} {what}" for what, count in contender["collected"].items())
        bad = f"  LACKS {contender['lacks']}: NOT MEASURED" if contender["lacks"] else ""
        why = f"  {contender['not_run']}" if contender["not_run"] else ""
        lines.append(f"  {contender['label']:{width}}  {got or 'nothing'}{bad}{why}")
    return "\n".join(lines)
