"""The worker side without a reporter: one process measures itself and tells what it measured."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from billiard.process import current_process
from celery import signals

from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import MAIN_SLOT
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.measuring.signals import (
    TaskSignals,
    connect,
    disconnect,
    lines_of_send,
)
from otel_celery_memory.worker.measuring.spans import TaskSpans
from otel_celery_memory.worker.measuring.task_recorder import Recorder
from otel_celery_memory.worker.remote_control.requests import Requests
from otel_celery_memory.worker.sink import Sink


class EmbeddedLifecycle:
    """Begins at once, follows the pool's forks into its children, ends with the process."""

    def __init__(
        self,
        sink: Sink,
        end_sink: Callable[[], None],
        settings: Settings,
        spans: TaskSpans,
        page: ControlPage,
        requests: Requests,
        max_memory_kib: int = 0,
    ) -> None:
        self._end_sink = end_sink
        self._requests = requests
        self._recorder = Recorder(sink, settings, spans, page, called_from=lines_of_send())
        self._recorder.max_memory_kib = max_memory_kib
        self._signals = TaskSignals(self._recorder)
        self._pid = 0

    def begin(self) -> None:
        """Measure the tasks of this process from now on."""
        self._signals.connect()
        for signal, receiver in self._receivers():
            connect(signal, receiver)
        self._announce()
        self._requests.attach(self._recorder)

    def end(self) -> None:
        """Measure no more; send what has been measured."""
        self._requests.detach()
        self._signals.disconnect()
        for signal, receiver in self._receivers():
            disconnect(signal, receiver)
        self._recorder.end(0)
        self._recorder.stop()
        self._end_sink()

    def _receivers(self) -> list[tuple[Any, Callable[..., None]]]:
        return [
            (signals.worker_process_init, self._process_up),
            (signals.worker_process_shutdown, self._process_down),
            (signals.worker_shutdown, self._worker_down),
        ]

    def stop_tracing(self) -> None:
        """For ``uninstrument()``: leave no tracing on in this process."""
        self._recorder.stop_tracing()

    def _announce(self) -> None:
        self._pid = os.getpid()
        self._recorder.begin(int(getattr(current_process(), "index", MAIN_SLOT)))

    def _process_up(self, **_: object) -> None:
        if os.getpid() != self._pid:
            self._announce()

    def _process_down(self, exitcode: int | None = None, **_: object) -> None:
        if os.getpid() == self._pid:
            self._recorder.end(exitcode or 0)
            self._end_sink()

    def _worker_down(self, **_: object) -> None:
        if os.getpid() == self._pid:
            self.end()
