"""How much later a long, allocation-heavy task ends if the guard stops its tracing.

In one child of a real worker, runs that a capture traces (with the default ``max_added_latency``)
alternate with runs that are not traced. The task measures its own duration.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from demo.receiver import Receiver
from otel_celery_memory.settings import Settings
from tests.redis_server import running_redis
from tests.worker.harness import Broker, Worker, running_worker

ROUNDS = 6
TARGET_S = 2.0
ENVIRON = {"TEST_REMOTE_CONTROL": "1", "OTEL_CELERY_MEMORY_TRACING": "off"}


def main() -> None:
    """Prints the figures."""
    bound_s = Settings().max_added_latency
    with (
        tempfile.TemporaryDirectory() as name,
        running_redis(Path(name)) as url,
        Receiver() as receiver,
    ):
        broker = Broker.redis(url)
        with running_worker(
            broker,
            Path(name),
            receiver.endpoint,
            arguments=["--concurrency=1"],
            environ=ENVIRON,
        ) as worker:
            count = _count_for(worker, TARGET_S)
            whole = worker.run("allocate_traced", count // 20, timeout_s=60)
            slowdown = whole / worker.run("allocate", count // 20, timeout_s=60)
            plain, traced = [], []
            for _ in range(ROUNDS):
                worker.remote("control", "memory_capture", "1", str(bound_s), broker=broker)
                traced.append(worker.run("allocate", count, timeout_s=60))
                time.sleep(3)  # the capture is complete
                plain.append(worker.run("allocate", count, timeout_s=60))
    late = [with_s - without_s for with_s, without_s in zip(traced, plain, strict=True)]
    print(f"A task of {statistics.median(plain):.2f} s of allocation, {ROUNDS} rounds in turns")
    print(f"  slower under tracing             {slowdown:6.1f} times")
    print(f"  ends later, median               {statistics.median(late):6.3f} s")
    print(f"  ends later, most                 {max(late):6.3f} s  (bound {bound_s}, plus noise)")
    spread = statistics.pstdev(plain)
    print(f"  spread of the runs not traced    {spread:6.3f} s")


def _count_for(worker: Worker, target_s: float) -> int:
    """How much to allocate for a run of about this many seconds."""
    count = 200
    took_s = worker.run("allocate", count, timeout_s=60)
    while took_s < target_s / 4:
        count *= 2
        took_s = worker.run("allocate", count, timeout_s=60)
    wanted: int = round(count * target_s / took_s)
    return wanted


if __name__ == "__main__":
    main()
