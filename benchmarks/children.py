"""Private memory that measuring adds to each child of a real worker, and the reporter's."""

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


def main() -> None:
    """Prints the figures."""
    private_mib: dict[str, list[float]] = {"none": [], "module": []}
    reporter_mib = 0.0
    with (
        tempfile.TemporaryDirectory() as name,
        running_redis(Path(name)) as url,
        Receiver() as receiver,
    ):
        broker = Broker.redis(url)
        for _ in range(ROUNDS):
            for how, found in private_mib.items():
                environ = {"TEST_INSTRUMENT": how}
                with running_worker(
                    broker, Path(name), receiver.endpoint, environ=environ
                ) as worker:
                    for result in [worker.send("noop") for _ in range(TASKS)]:
                        result.get(timeout=60)
                    found.extend(_uss_mib(pid) for pid in children_of(worker.pid))
                    reporter = worker.reporter()
                    if reporter is not None:
                        reporter_mib = psutil.Process(reporter).memory_info().rss / 2**20
                    worker.stop()
    bare, ours = (statistics.median(private_mib[how]) for how in ("none", "module"))
    print(f"Real worker, 2 children, {TASKS} tasks, {ROUNDS} rounds in turns")
    print(f"  private memory of a child, bare     {bare:6.2f} MiB")
    print(f"  private memory of a child, measured {ours:6.2f} MiB")
    print(f"  added to each child                 {ours - bare:6.2f} MiB  (bound 1)")
    print(f"  RSS of the reporter                 {reporter_mib:6.2f} MiB  (bound 50)")


def _uss_mib(pid: int) -> float:
    return float(psutil.Process(pid).memory_full_info().uss) / 2**20


if __name__ == "__main__":
    main()
