"""Whether the reporter's memory stays bounded with endless frames and endless task names.

`python -m soak.frames` feeds a real reporter through a real ring, as children would, and reads its
RSS from the kernel: after a first part of the frames, with all the names in it, and at the end.
"""

from __future__ import annotations

import argparse
import mmap
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from demo.receiver import Receiver
from otel_celery_memory.ipc.records import (
    MAIN_SLOT,
    NO_SPAN,
    Goodbye,
    ProcessUp,
    TaskFinished,
    TaskStarted,
)
from otel_celery_memory.ipc.ring import blocks_of
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.lifecycle.supervisor import Supervisor
from otel_celery_memory.worker.record_writer import RecordWriter

CHILDREN = 4
_BATCH_TASKS = 1_000
"""Fewer than half a ring takes."""
_POLL_S = 0.01
_SETTLE_S = 3.0
_FIRST_PART = 10
"""The first of so many parts fills caches and names: after it, nothing may grow."""


@dataclass(frozen=True)
class Growth:
    """RSS of one reporter."""

    frames: int
    names: int
    early_bytes: int
    end_bytes: int
    dropped: int
    measured: int

    @property
    def grown_bytes(self) -> int:
        """From the first part's end to the last one's."""
        return self.end_bytes - self.early_bytes


def feed(frames: int, names: int) -> Growth:
    """Feed so many frames, two a task, of so many task names in turn."""
    tasks = frames // 2
    with Receiver() as receiver:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.endpoint
        writer = RecordWriter()
        supervisor = Supervisor(writer, Settings(export_interval=1.0), "frames@h", 0)
        before = writer.page.last_beat()
        supervisor.start()
        assert supervisor.pid is not None
        while writer.page.last_beat() == before:
            time.sleep(_POLL_S)
        reporter = psutil.Process(supervisor.pid)
        first = max(tasks // _FIRST_PART, names)
        _send(writer, range(first), names)
        early_bytes = _settled_rss(reporter)
        _send(writer, range(first, tasks), names)
        end_bytes = _settled_rss(reporter)
        dropped = writer.page.drop_counters.counts().total
        writer.send(Goodbye(os.getpid(), time.time_ns()))
        writer.close()
        supervisor.stop()
    measured = receiver.received.latest("celery.task.memory.measured")
    total = sum(int(point.value) for point in measured)
    return Growth(frames, names, early_bytes, end_bytes, dropped, total)


def _settled_rss(reporter: psutil.Process) -> int:
    time.sleep(_SETTLE_S)
    return int(reporter.memory_info().rss)


def _send(writer: RecordWriter, numbers: range, names: int) -> None:
    """Send no faster than the reporter reads: dropped frames would not load it."""
    ring = writer.rings.map_ring(MAIN_SLOT + 1)
    for number in numbers:
        while number % _BATCH_TASKS == 0 and _blocks_in_use(ring) > 1:
            time.sleep(_POLL_S)
        slot = number % CHILDREN
        pid, name = os.getpid(), f"shop.tasks.number_{number % names}"
        now_ns = time.time_ns()
        task_id = f"{number:036}"
        if number < CHILDREN:
            writer.send(ProcessUp(pid, now_ns, slot, 50 << 20))
        writer.send(TaskStarted(pid, now_ns, 50 << 20, 4096, 0, task_id, name, name))
        writer.send(
            TaskFinished(
                *(pid, now_ns, now_ns, 50 << 20, number % 999, 1 << 20, None, None, None, 1, 0),
                *(NO_SPAN, task_id, name, "SUCCESS", ""),
            )
        )


def _blocks_in_use(ring: mmap.mmap) -> int:
    return sum(any(ring[block.begin : block.begin + 8]) for block in blocks_of(len(ring)))


def main(arguments: Sequence[str]) -> int:
    """Feed the reporter, and print its growth."""
    parser = argparse.ArgumentParser(prog="python -m soak.frames", description=__doc__)
    parser.add_argument("--frames", type=int, default=2_000_000)
    parser.add_argument("--names", type=int, default=10_000)
    options = parser.parse_args(arguments)
    growth = feed(options.frames, options.names)
    print(f"{growth.frames:,} frames of {growth.names:,} task names, {growth.dropped} dropped")
    print(f"  RSS after the first part  {growth.early_bytes / 2**20:7.1f} MiB")
    print(f"  RSS at the end            {growth.end_bytes / 2**20:7.1f} MiB")
    print(f"  tasks measured            {growth.measured:,}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
