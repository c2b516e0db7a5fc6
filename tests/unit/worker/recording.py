"""A recorder of this process, with memories that a test moves or breaks."""

from __future__ import annotations

from typing import Any

from opentelemetry.trace import Span

from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.probes.own_memory import ProcessProbe
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.measuring.spans import TaskSpans
from otel_celery_memory.worker.measuring.task_recorder import TaskRecorder
from tests.unit.fakes import FakeMemory, ListSink
from tests.unit.worker.recorder_bench import SAMPLES


class Probes:
    """Opens memories of one process, and remembers them."""

    def __init__(self) -> None:
        self.opened: list[FakeMemory] = []

    def __call__(self) -> ProcessProbe:
        self.opened.append(FakeMemory())
        return self.opened[-1]


class FailingMemory(FakeMemory):
    """Fails, as a descriptor that a task has closed does."""

    error: BaseException = OSError(9, "Bad file descriptor")

    def rss_bytes(self) -> int:
        raise self.error


class FailingSpans(TaskSpans):
    """Fails at every task."""

    def of(self, task: Any, started_ns: int) -> tuple[Span | None, bool]:
        raise RuntimeError("no spans today")


class Recording:
    """A recorder of this process with what it wrote."""

    def __init__(self, spans: TaskSpans | None = None, **settings: Any) -> None:
        self.sink = ListSink()
        self.probes = Probes()
        settings = {"tracing": "off", **settings}
        self.page = ControlPage()
        self.recorder = TaskRecorder(
            self.sink, Settings(**settings), spans or TaskSpans(), self.page, self.probes
        )

    def take(self) -> list[Any]:
        """The records since the last time, but for samples."""
        taken = [record for record in self.sink.records if not isinstance(record, SAMPLES)]
        self.sink.records.clear()
        return taken

    def run(self, task: Any, task_id: str = "a", state: str | None = "SUCCESS") -> list[Any]:
        """A task runs; what is told of it."""
        self.recorder.prerun(task_id, task)
        self.recorder.postrun(task_id, task, state)
        return self.take()
