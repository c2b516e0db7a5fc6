"""A recorder with a pipe of its own, as in a child of the pool."""

from __future__ import annotations

import os
import tracemalloc
from types import SimpleNamespace
from typing import Any

from otel_celery_memory.ipc.codec import records_in
from otel_celery_memory.ipc.records import (
    FloorMeasured,
    HeapSampled,
    Record,
    RunRetained,
    TaskFinished,
    TaskStarted,
)
from otel_celery_memory.probes.own_memory import ProcessProbe, open_process_probe
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.measuring.spans import TaskSpans
from otel_celery_memory.worker.measuring.task_recorder import TaskRecorder
from otel_celery_memory.worker.record_writer import RecordWriter
from tests.unit.rings import Rings

SLOT = 2
SAMPLES = (HeapSampled, RunRetained, FloorMeasured)
"""What is sampled is sent of some runs: `test_run_counters` says of which."""
PLAIN: list[type[Record]] = [TaskFinished]
GENERAL: list[type[Record]] = [TaskStarted, TaskFinished]
EAGER: Any = SimpleNamespace(name="app.eager", request=SimpleNamespace(is_eager=True))
"""A task that another one applies, as the receivers see it."""


class Child:
    """A recorder that has begun, and what it writes."""

    def __init__(
        self,
        spans: TaskSpans | None = None,
        probe: ProcessProbe | None = None,
        **settings: Any,
    ) -> None:
        self.pipe = RecordWriter()
        self.pipe.attach(SLOT)
        self._rings = Rings(self.pipe)
        self.recorder = TaskRecorder(
            self.pipe,
            Settings(**settings),
            spans or TaskSpans(),
            self.pipe.page,
            open_process_probe if probe is None else lambda: probe,
        )
        self.recorder.begin(SLOT)
        self.told()

    def told(self) -> list[Record]:
        """The records in the rings since the last time, but for samples."""
        return [record for record in self._rings.read() if not isinstance(record, SAMPLES)]

    def run(self, task: Any, task_id: str = "a") -> list[type[Record]]:
        """A run; the kinds of what is told of it."""
        self.recorder.prerun(task_id, task)
        self.recorder.postrun(task_id, task, "SUCCESS")
        return [type(record) for record in self.told()]

    def held(self) -> list[TaskStarted]:
        """What the page holds for the reporter."""
        records = records_in(self.pipe.page.in_flight(SLOT))
        return [record for record in records if isinstance(record, TaskStarted)]

    def held_ids(self) -> list[str]:
        """The ids of the tasks that it holds."""
        return [record.task_id for record in self.held()]

    def idle(self) -> bool:
        """Whether the page says that all that it ran has ended."""
        return self.pipe.page.idle(SLOT, os.getpid())

    def close(self) -> None:
        """Give back what is held."""
        self.recorder.stop_tracing()
        self.recorder.stop()
        self._rings.close()
        self.pipe.close()


def begin_the_general_way(child: Child, task: Any, task_id: str) -> None:
    """A start that is sent and held: what a user traces is not plain."""
    tracemalloc.start()
    child.recorder.prerun(task_id, task)
    tracemalloc.stop()
