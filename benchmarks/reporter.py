"""What the reporter costs: CPU a task, RSS, frames dropped under 5,000 tasks a second."""

from __future__ import annotations

import os
import time

import psutil

from demo.receiver import Receiver
from otel_celery_memory.ipc.records import NO_SPAN, TaskFinished, TaskStarted
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.lifecycle.supervisor import Supervisor
from otel_celery_memory.worker.record_writer import RecordWriter

BURST_TASKS = 2_500
BURSTS = 20
BURST_EVERY_S = 0.5
NAMES = 20


def main() -> None:
    """Prints the figures."""
    with Receiver() as receiver:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.endpoint
        writer = RecordWriter()
        supervisor = Supervisor(writer, Settings(export_interval=1.0), "bench@h", 0)
        supervisor.start()
        assert supervisor.pid is not None
        reporter = psutil.Process(supervisor.pid)
        _burst(writer, 100)
        time.sleep(3)
        before_s = _cpu_s(reporter)
        time.sleep(5)
        idle_s = (_cpu_s(reporter) - before_s) / 5
        before_s = _cpu_s(reporter)
        began_s = time.monotonic()
        for _ in range(BURSTS):
            _burst(writer, BURST_TASKS)
            time.sleep(BURST_EVERY_S)
        time.sleep(1)
        elapsed_s = time.monotonic() - began_s
        busy_s = _cpu_s(reporter) - before_s - idle_s * elapsed_s
        rss_mib = reporter.memory_info().rss / 2**20
        dropped = writer.page.drop_counters.counts().total
        writer.close()
        supervisor.stop()
    tasks = BURSTS * BURST_TASKS
    print(f"Reporter, {tasks:,} tasks in bursts of {BURST_TASKS:,} ({NAMES} names)")
    print(f"  CPU a task                 {busy_s / tasks * 1e6:6.1f} us   (bound 20)")
    print(f"  CPU when idle              {idle_s * 1e3:6.2f} ms a second, exports every second")
    print(f"  RSS                        {rss_mib:6.1f} MiB  (bound 50)")
    print(f"  frames dropped             {dropped:6}      (bound 0)")


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _burst(writer: RecordWriter, tasks: int) -> None:
    """Both frames of each task, as four children would write them at full speed."""
    for number in range(tasks):
        pid, name = 100 + number % 4, f"shop.tasks.number_{number % NAMES}"
        now_ns = time.time_ns()
        writer.send(TaskStarted(pid, now_ns, 50 << 20, 4096, 0, "0" * 36, name, name))
        writer.send(
            TaskFinished(
                *(pid, now_ns, now_ns, 50 << 20, number * 64, 1 << 20, None, None, None, 1, 0),
                *(NO_SPAN, "0" * 36, name, "SUCCESS", ""),
            )
        )


if __name__ == "__main__":
    main()
