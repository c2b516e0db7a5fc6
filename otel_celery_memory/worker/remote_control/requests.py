"""What people ask of a worker, by remote command or by signal, and which process hears it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from billiard.process import current_process

from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.measuring.task_recorder import TaskRecorder
from otel_celery_memory.worker.pipe import PipeWriter
from otel_celery_memory.worker.remote_control import capture_signal, commands
from otel_celery_memory.worker.remote_control.validation import (
    ALLOWANCE_S,
    SIGNAL_CAPTURE_S,
    RefusedError,
    WorkerControl,
    begin_capture,
)

logger = logging.getLogger(__name__)


class Requests(Protocol):
    """Hears what people ask of one process."""

    def attach(self, recorder: TaskRecorder) -> None:
        """Listen from now on, for what `recorder` measures."""

    def detach(self) -> None:
        """Listen no more."""


class OwnRequests:
    """Of a process that answers for itself: delivery in process."""

    def __init__(
        self, settings: Settings, page: ControlPage, view: Callable[[], dict[str, Any] | None]
    ) -> None:
        self._settings = settings
        self._page = page
        self._view = view
        self._running = False

    def attach(self, recorder: TaskRecorder) -> None:
        self._running = True
        control = WorkerControl(
            self._settings,
            self._page,
            lambda: _with_pid(self._view()),
            lambda: self._running,
            lambda: _capture_now(recorder),
        )
        # A child of a pool hears no remote commands.
        if current_process().name == "MainProcess":
            commands.attach(control)
        if self._settings.capture_signal:
            capture_signal.handle(lambda: _capture_by_signal(control))

    def detach(self) -> None:
        self._running = False
        commands.detach()
        capture_signal.release()


class ChildRequests:
    """Of a child of the pool: its main process gives the orders, and hears of signals."""

    def __init__(self, settings: Settings, page: ControlPage, main_pid: int) -> None:
        self._settings = settings
        self._page = page
        self._main_pid = main_pid

    def attach(self, recorder: TaskRecorder) -> None:
        commands.detach()  # what a fork left behind
        if not self._settings.capture_signal:
            return

        def signalled() -> None:
            given = self._page.commands()
            if given.capture and time.monotonic() < given.until_s:
                _capture_now(recorder)
            else:
                capture_signal.send([self._main_pid])

        capture_signal.handle(signalled)

    def detach(self) -> None:
        capture_signal.release()


class WorkerRequests:
    """Of a worker with a reporter, in its main process."""

    def __init__(
        self,
        settings: Settings,
        pipe: PipeWriter,
        children: Callable[[], Sequence[tuple[int, int]]],
        running: Callable[[], bool],
    ) -> None:
        """``children`` gives pid and slot of the pool's children now."""
        self._settings = settings
        self._pipe = pipe
        self._children = children
        self._running = running
        self._recorder: TaskRecorder | None = None

    def attach(self, recorder: TaskRecorder) -> None:
        self._recorder = recorder
        control = WorkerControl(
            self._settings,
            self._pipe.page,
            lambda: _with_pid(self._pipe.status.read()),
            self._running,
            self._wake,
        )
        commands.attach(control)
        if self._settings.capture_signal:
            capture_signal.handle(lambda: _capture_by_signal(control))

    def detach(self) -> None:
        commands.detach()
        capture_signal.release()

    def _wake(self) -> None:
        """Children learn of orders at their next task; by signal of what they run now too."""
        if self._recorder is not None and self._recorder.tracing is not None:
            _capture_now(self._recorder)
        elif self._settings.capture_signal:
            capture_signal.send([pid for pid, _ in self._children()])


def _capture_now(recorder: TaskRecorder) -> None:
    if recorder.tracing is not None:
        recorder.tracing.capture_now()


def _capture_by_signal(control: WorkerControl) -> None:
    try:
        said = begin_capture(control, 0, SIGNAL_CAPTURE_S, ALLOWANCE_S, signal=True)
    except RefusedError as why:
        said = f"SIGURG: {why}"
    logger.warning("otel_celery_memory: %s", said)


def _with_pid(view: dict[str, Any] | None) -> dict[str, Any] | None:
    """The view, with this process's pid."""
    return None if view is None else {**view, "main_pid": os.getpid()}
