"""What it costs as things grow: task names, children, a live heap, frames in the reporter.

The first three are workers with this package's defaults beside bare ones, by turns; one child but
where children are what grows. A heap is of lists, as the collector has to go through them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.batches import Batch, BenchWorker, bench_worker
from benchmarks.contenders import CONTENDERS
from benchmarks.outputs import Outputs, PushReceiver
from benchmarks.progress import Progress
from benchmarks.reporter import fed_reporter
from benchmarks.statistics import percentile, ratio_of
from demo.receiver import Receiver
from tests.redis_server import running_redis

OURS, BARE = "default", "bare"
FRAMES_A_TASK = 2
_FEED_S = 0.05


@dataclass(frozen=True)
class Sizes:
    """What is tried of each."""

    names: tuple[int, ...]
    children: tuple[int, ...]
    heap_mib: tuple[int, ...]
    tasks_a_second: tuple[int, ...]
    rounds: int
    seconds: float


SHORT = Sizes((1, 200), (1, 4), (0, 256), (2_000, 8_000), 3, 2.0)
FULL = Sizes(
    (1, 20, 200, 1_000),
    (1, 4, 16, 32),
    (0, 256, 1_024, 4_096),
    (1_000, 5_000, 10_000, 20_000, 40_000, 80_000),
    10,
    10.0,
)
PARTS = ("names", "children", "heap", "reporter")


def measured(
    sizes: Sizes, progress: Progress, parts: Sequence[str] = PARTS
) -> dict[str, list[dict[str, Any]]]:
    """Rows of figures of each, as plain values."""
    found: dict[str, list[dict[str, Any]]] = {}
    if "names" in parts:
        found["names"] = [
            _of_workers(progress, sizes, "names", number, names=number) for number in sizes.names
        ]
    if "children" in parts:
        found["children"] = [
            _of_workers(progress, sizes, "children", number, children=number)
            for number in sizes.children
        ]
    if "heap" in parts:
        found["heap"] = [
            _of_workers(progress, sizes, "heap_mib", size, heap_mib=size) for size in sizes.heap_mib
        ]
    if "reporter" in parts:
        found["reporter"] = [
            reporter_at(rate, sizes.seconds, progress) for rate in sizes.tasks_a_second
        ]
    return found


def _of_workers(
    progress: Progress,
    sizes: Sizes,
    what: str,
    size: int,
    names: int = 20,
    children: int = 1,
    heap_mib: int = 0,
) -> dict[str, Any]:
    """One row: a worker of ours and a bare one that has the same."""
    progress.step(f"growth: {what} {size:,}")
    tasks = [f"bench.named_{number:04}" for number in range(names)]
    environ = {"BENCH_NAMES": str(names), "BENCH_HEAP_MIB": str(heap_mib)}
    batches: dict[str, list[Batch]] = {OURS: [], BARE: []}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(running_redis(directory))
        workers: dict[str, BenchWorker] = {}
        for name in (BARE, OURS):
            own = directory / name
            own.mkdir()
            outputs = Outputs(
                own, stack.enter_context(Receiver()), stack.enter_context(PushReceiver())
            )
            workers[name] = stack.enter_context(
                bench_worker(
                    *(name, name, url, own),
                    {**outputs.environ(CONTENDERS[name]), **environ},
                    children,
                )
            )
        if heap_mib:
            for worker in workers.values():
                worker.batch(("bench.hold_heap",), 1)
        for number in range(-1, sizes.rounds):
            for name in (BARE, OURS) if number % 2 else (OURS, BARE):
                count = max(240, names, 20 * children)
                batch = workers[name].batch(tasks, count)
                if number >= 0:
                    batches[name].append(batch)
        memory = {name: worker.memory() for name, worker in workers.items()}
    pairs = [
        (ours.total_s, bare.total_s)
        for ours, bare in zip(batches[OURS], batches[BARE], strict=True)
    ]
    ratio = ratio_of(pairs)
    runs_s = {name: [r for batch in of for r in batch.runs_s] for name, of in batches.items()}
    mean = {name: sum(each.total_s for each in of) / len(of) for name, of in batches.items()}
    return {
        what: size,
        "cpu_ratio": ratio.value,
        "low": ratio.low,
        "high": ratio.high,
        "added_us": (mean[OURS] - mean[BARE]) * 1e6,
        "reporter_us": sum(b.cpu_s["reporter"] for b in batches[OURS]) / len(pairs) * 1e6,
        "p99_us": percentile(runs_s[OURS], 0.99) * 1e6,
        "p99_bare_us": percentile(runs_s[BARE], 0.99) * 1e6,
        "longest_us": max(runs_s[OURS]) * 1e6,
        "longest_bare_us": max(runs_s[BARE]) * 1e6,
        "reporter_rss_bytes": memory[OURS].reporter_rss,
        "added_child_bytes": memory[OURS].child - memory[BARE].child,
        "added_worker_bytes": memory[OURS].worker - memory[BARE].worker,
    }


def reporter_at(tasks_a_second: int, seconds: float, progress: Progress) -> dict[str, Any]:
    """A reporter that is fed at a rate: its CPU, and frames that found no room.

    One process writes, at that rate or as near to it as it comes; what was really written is told.
    """
    progress.step(f"growth: reporter at {tasks_a_second:,} tasks a second")
    with fed_reporter() as fed:
        before_s, began_s, sent = fed.cpu_s(), time.monotonic(), 0
        while (passed_s := time.monotonic() - began_s) < seconds:
            due = int(passed_s * tasks_a_second) - sent
            fed.feed(due)
            sent += due
            time.sleep(_FEED_S)
        passed_s = time.monotonic() - began_s
        time.sleep(1)
        busy_s, rss, dropped = fed.cpu_s() - before_s, fed.rss_bytes(), fed.dropped()
    return {
        "tasks_a_second": tasks_a_second,
        "frames_a_second": sent * FRAMES_A_TASK / passed_s,
        "cpu_us": busy_s / max(sent, 1) * 1e6,
        "share_of_a_core": busy_s / passed_s,
        "dropped": dropped,
        "dropped_share": dropped / max(sent * FRAMES_A_TASK, 1),
        "rss_bytes": rss,
    }


def table(told: dict[str, list[dict[str, Any]]]) -> str:
    """For people."""
    lines = []
    for what, rows in told.items():
        lines.append(f"As {what} grows")
        for row in rows:
            cells = (
                f"{key} {value:,.3f}" if isinstance(value, float) else f"{key} {value:,}"
                for key, value in row.items()
            )
            lines.append(f"  {', '.join(cells)}")
    return "\n".join(lines)


def main(arguments: Sequence[str] = ()) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--full", action="store_true", help="up to the largest sizes")
    parser.add_argument("--rounds", type=int, help="of batches, for each size")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    options = parser.parse_args(arguments)
    sizes = FULL if options.full else SHORT
    told = measured(
        replace(sizes, rounds=options.rounds or sizes.rounds), Progress(), options.parts
    )
    print(table(told))


if __name__ == "__main__":
    main(sys.argv[1:])
