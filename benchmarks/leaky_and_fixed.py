"""RSS over ten thousand runs, leaky against fixed, from our own telemetry, with the verdicts.

The table that guides on leaking workers have; here neither process nor task was asked for it. Each
variant has a worker of its own with one child and default settings, but exports every second.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from demo.receiver import Point, Received, Receiver
from otel_celery_memory import conventions as c
from tests.processes import wait_until
from tests.redis_server import running_redis
from tests.worker.harness import Broker, Worker, running_worker
from tests.zoo.judgement import runs_of
from tests.zoo.said import Said, said_in, standing

PAIRS = ("list", "cache")
RUNS, ROWS, SECONDS = 10_000, 10, 300.0
ENVIRON = {"OTEL_CELERY_MEMORY_EXPORT_INTERVAL": "1", "OTEL_CELERY_MEMORY_WARM_UP": "60"}
_TICK_S = 0.05
_SETTLE_S = 10.0
"""For the reporter to read the last runs, and to export what it makes of them."""
_MIB = 1 << 20


@dataclass(frozen=True)
class Level:
    """RSS of the child when it had so many runs, and what was said of its task by then."""

    runs: int
    rss_bytes: float
    state: str


@dataclass(frozen=True)
class Variant:
    """What was seen of one variant."""

    name: str
    levels: tuple[Level, ...]
    words: tuple[str, ...]


def main(arguments: Sequence[str] = ()) -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaky_and_fixed")
    parser.add_argument("--runs", type=int, default=RUNS, help="of each task")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that they are spread over")
    options = parser.parse_args(arguments)
    names = [f"{pair}_{variant}" for pair in PAIRS for variant in ("leaky", "fixed")]
    with (
        tempfile.TemporaryDirectory() as directory,
        running_redis(Path(directory)) as url,
        ThreadPoolExecutor(len(names)) as threads,
    ):

        def measured(name: str) -> Variant:
            return _measure(name, Broker.redis(url), Path(directory), options.runs, options.seconds)

        found = list(threads.map(measured, names))
    print(table(found))


def _measure(name: str, broker: Broker, directory: Path, runs: int, seconds: float) -> Variant:
    own = directory / name
    own.mkdir()
    with (
        Receiver() as receiver,
        running_worker(
            broker,
            own,
            receiver.endpoint,
            arguments=["--concurrency=1"],
            environ=ENVIRON,
            name=name.replace("_", "-"),
            app="benchmarks.leaky_and_fixed_app",
        ) as worker,
    ):
        _send(worker, f"bench.{name}", runs, seconds)
        received = receiver.received
        wait_until(
            f"{runs} runs are measured",
            lambda: runs_of(list(received.points), name)(time.time_ns()) >= runs,
            120,
        )
        time.sleep(_SETTLE_S)
        worker.stop()
    return _variant(name, received, runs)


def _send(worker: Worker, task: str, runs: int, seconds: float) -> None:
    """Evenly, and as fast as the client can where it is late."""
    began_s, sent = time.monotonic(), 0
    with worker.client.producer_or_acquire() as producer:
        while sent < runs:
            due = min(int((time.monotonic() - began_s) / seconds * runs), runs)
            for number in range(sent, due):
                worker.client.send_task(task, (number,), queue=worker.queue, producer=producer)
            sent = due
            time.sleep(_TICK_S)


def _variant(name: str, received: Received, runs: int) -> Variant:
    said = said_in(received.events)
    steps = range(runs // ROWS, runs + 1, max(runs // ROWS, 1))
    return Variant(
        name,
        levels(received.points, said, name, [1, *steps]),
        tuple(each.words for each in standing(said)),
    )


def levels(
    points: Iterable[Point], said: Sequence[Said], task: str, steps: Iterable[int]
) -> tuple[Level, ...]:
    """RSS at the first export after so many runs, by the numbers that were exported."""
    points = list(points)
    ran = runs_of(points, task)
    sizes = [
        point
        for point in points
        if point.metric == c.MEMORY.name and point.attributes.get(c.SLOT) == "0"
    ]
    found = []
    for step in steps:
        at = next((point for point in sizes if ran(point.time_ns) >= step), None)
        if at is None:
            continue
        states = {each.key: each.state for each in said if each.at_ns <= at.time_ns}
        found.append(Level(step, at.value, ", ".join(sorted(set(states.values())))))
    return tuple(found)


def table(variants: Sequence[Variant]) -> str:
    """A row for each thousand runs, a column for each variant."""
    cells = [
        ["runs", *(variant.name.replace("_", ", ") for variant in variants)],
        *(
            [f"{row[0].runs:,}", *(_cell(level) for level in row)]
            for row in zip(*(variant.levels for variant in variants), strict=False)
        ),
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    words = [
        f"{variant.name.replace('_', ', ')}: {text}"
        for variant in variants
        for text in (variant.words or ("nothing was said",))
    ]
    return "\n".join(["RSS of the child, and what was said of it", *lines, "", *words])


def _cell(level: Level) -> str:
    return f"{level.rss_bytes / _MIB:.1f} MiB {level.state}".strip()


if __name__ == "__main__":
    main(sys.argv[1:])
