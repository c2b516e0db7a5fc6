"""What the reporter costs: CPU a task, RSS, frames dropped under 5,000 tasks a second."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.progress import Progress
from demo.receiver import Receiver
from otel_celery_memory.ipc.records import NO_SPAN, TaskFinished, TaskStarted
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.lifecycle.supervisor import Supervisor
from otel_celery_memory.worker.record_writer import RecordWriter
from tests.processes import wait_until

BURST_TASKS = 2_500
BURSTS = 20
BURST_EVERY_S = 0.5
NAMES = 20


@dataclass(frozen=True)
class FedReporter:
    """A reporter that exports, and the rings through which this process feeds it."""

    writer: RecordWriter
    process: psutil.Process

    def feed(self, tasks: int) -> None:
        """Both frames of each task, as a child writes them."""
        pid = os.getpid()
        for number in range(tasks):
            name, now_ns = f"shop.tasks.number_{number % NAMES}", time.time_ns()
            self.writer.send(TaskStarted(pid, now_ns, 50 << 20, 4096, 0, "0" * 36, name, name))
            self.writer.send(
                TaskFinished(
                    *(pid, now_ns, now_ns, 50 << 20, number * 64, 1 << 20, None, None, None, 1, 0),
                    *(NO_SPAN, "0" * 36, name, "SUCCESS", ""),
                )
            )

    def cpu_s(self) -> float:
        """What it has used since its start."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def rss_bytes(self) -> int:
        """How large it is."""
        return int(self.process.memory_info().rss)

    def dropped(self) -> int:
        """Frames that found no room."""
        return self.writer.page.drop_counters.counts().total


@contextmanager
def fed_reporter() -> Iterator[FedReporter]:
    """A reporter of its own, from its first export on."""
    with Receiver() as receiver:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.endpoint
        writer = RecordWriter()
        supervisor = Supervisor(writer, Settings(export_interval=1.0), "bench@h", 0)
        supervisor.start()
        assert supervisor.pid is not None
        fed = FedReporter(writer, psutil.Process(supervisor.pid))
        fed.feed(100)
        wait_until("the reporter exports", lambda: receiver.received.requests, 60)
        yield fed
        writer.close()
        supervisor.stop()


def measured(progress: Progress) -> dict[str, Any]:
    """CPU, RSS and frames dropped."""
    progress.step("the reporter")
    with fed_reporter() as fed:
        time.sleep(3)
        before_s = fed.cpu_s()
        time.sleep(5)
        idle_s = (fed.cpu_s() - before_s) / 5
        before_s = fed.cpu_s()
        began_s = time.monotonic()
        for _ in range(BURSTS):
            fed.feed(BURST_TASKS)
            time.sleep(BURST_EVERY_S)
        time.sleep(1)
        elapsed_s = time.monotonic() - began_s
        busy_s = fed.cpu_s() - before_s - idle_s * elapsed_s
        rss_mib, dropped = fed.rss_bytes() / 2**20, fed.dropped()
    tasks = BURSTS * BURST_TASKS
    return {
        "tasks": tasks,
        "cpu_us": busy_s / tasks * 1e6,
        "idle_ms_a_second": idle_s * 1e3,
        "rss_mib": rss_mib,
        "dropped": dropped,
    }


def table(told: Mapping[str, Any]) -> str:
    """For people."""
    return "\n".join(
        [
            f"Reporter, {told['tasks']:,} tasks in bursts of {BURST_TASKS:,} ({NAMES} names)",
            f"  CPU a task                 {told['cpu_us']:6.1f} us",
            f"  CPU when idle              {told['idle_ms_a_second']:6.2f} ms a second, "
            "exports every second",
            f"  RSS                        {told['rss_mib']:6.1f} MiB",
            f"  frames dropped             {told['dropped']:6}",
        ]
    )


if __name__ == "__main__":
    print(table(measured(Progress())))
