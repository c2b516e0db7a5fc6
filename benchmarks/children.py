"""Private memory that measuring adds to each child of a real worker, and the reporter's.

Of two children one runs nearly all tasks. The interpreter soon makes a full collection there, and
so copies the heap that it shares with the main process; the other child shares it as long as
nobody does that.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import psutil

from demo.receiver import Receiver
from tests.redis_server import running_redis
from tests.worker.harness import Broker, children_of, running_worker

ROUNDS = 5
TASKS = 400
WAYS = {
    "bare": {"TEST_INSTRUMENT": "none"},
    "tracing off": {"TEST_INSTRUMENT": "module", "OTEL_CELERY_MEMORY_TRACING": "off"},
    "default": {"TEST_INSTRUMENT": "module"},
}


def main() -> None:
    """Prints the figures."""
    busy_mib: dict[str, list[float]] = {how: [] for how in WAYS}
    idle_mib: dict[str, list[float]] = {how: [] for how in WAYS}
    reporter_mib = 0.0
    with (
        tempfile.TemporaryDirectory() as name,
        running_redis(Path(name)) as url,
        Receiver() as receiver,
    ):
        broker = Broker.redis(url)
        for _ in range(ROUNDS):
            for how, environ in WAYS.items():
                with running_worker(
                    broker, Path(name), receiver.endpoint, environ=environ
                ) as worker:
                    for result in [worker.send("noop") for _ in range(TASKS)]:
                        result.get(timeout=60)
                    idle, busy = sorted(_uss_mib(pid) for pid in children_of(worker.pid))
                    busy_mib[how].append(busy)
                    idle_mib[how].append(idle)
                    reporter = worker.reporter()
                    if reporter is not None:
                        reporter_mib = psutil.Process(reporter).memory_info().rss / 2**20
                    worker.stop()
    print(f"Private MiB; a real worker, 2 children, {TASKS} tasks, {ROUNDS} rounds in turns")
    for what, found in (("busy", busy_mib), ("idle", idle_mib)):
        bare, *ours = (statistics.median(found[how]) for how in WAYS)
        added = ", ".join(
            f"{how} {size - bare:+.2f}" for how, size in zip(list(WAYS)[1:], ours, strict=True)
        )
        print(f"  a child that is {what}: bare {bare:.2f}, {added}  (bound 1)")
    print(f"  RSS of the reporter: {reporter_mib:.2f} MiB  (bound 50)")


def _uss_mib(pid: int) -> float:
    return float(psutil.Process(pid).memory_full_info().uss) / 2**20


if __name__ == "__main__":
    main()
