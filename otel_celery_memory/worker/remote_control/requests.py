"""Which process receives what people ask of a worker, by remote command or by signal."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from billiard.process import current_process

from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.status_page import EVIDENCE
from otel_celery_memory.probes import urgent_signal
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.measuring.task_recorder import TaskRecorder
from otel_celery_memory.worker.record_writer import RecordWriter
from otel_celery_memory.worker.remote_control import commands
from otel_celery_memory.worker.remote_control.validation import (
    ALLOWANCE_S,
    SIGNAL_CAPTURE_S,
    RefusedError,
    Wanted,
    WorkerControl,
    begin_capture,
    begin_census,
)

logger = logging.getLogger(__name__)

CONFIRMING_RUNS, CONFIRMING_S = 100, 60.0
"""Of so many runs of a suspect, in each process, or as many as there are in that time."""


def current_view() -> dict[str, Any] | None:
    """The view of this process's worker; ``None`` if there is none, or people may not see it."""
    control = commands.attached()
    if control is None or not control.settings.remote_control:
        return None
    return control.view()


class Requests(Protocol):
    """Receives commands and signals for one process."""

    def attach(self, recorder: TaskRecorder) -> None:
        """Starts to receive, for the runs that `recorder` measures."""

    def detach(self) -> None:
        """Stops receiving."""


class OwnRequests:
    """For a process that answers for itself: delivery in process."""

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
        # A child of a pool receives no remote commands.
        if current_process().name == "MainProcess":
            commands.attach(control)
        if self._settings.capture_signal:
            urgent_signal.handle(lambda: _capture_by_signal(control))

    def detach(self) -> None:
        self._running = False
        commands.detach()
        urgent_signal.release()


class ChildRequests:
    """For a child of the pool: its main process receives commands and writes them to the page."""

    def __init__(self, settings: Settings, page: ControlPage, main_pid: int) -> None:
        self._settings = settings
        self._page = page
        self._main_pid = main_pid

    def attach(self, recorder: TaskRecorder) -> None:
        commands.detach()  # inherited by the fork
        if not self._settings.capture_signal:
            return

        def signalled() -> None:
            given = self._page.commands()
            if given.capture and time.monotonic() < given.until_s:
                _capture_now(recorder)
            else:
                urgent_signal.send([self._main_pid])

        urgent_signal.handle(signalled)

    def detach(self) -> None:
        urgent_signal.release()


class WorkerRequests:
    """For the main process of a worker with a reporter."""

    def __init__(
        self,
        settings: Settings,
        writer: RecordWriter,
        children: Callable[[], Sequence[tuple[int, int]]],
        running: Callable[[], bool],
    ) -> None:
        """``children`` returns the pid and slot of each child in the pool now."""
        self._settings = settings
        self._writer = writer
        self._children = children
        self._running = running
        self._recorder: TaskRecorder | None = None
        self._control: WorkerControl | None = None
        self._confirmed = 0

    def attach(self, recorder: TaskRecorder) -> None:
        self._recorder = recorder
        self._control = control = WorkerControl(
            self._settings,
            self._writer.page,
            lambda: _with_pid(self._writer.status.read()),
            self._running,
            self._wake,
        )
        commands.attach(control)
        if self._settings.capture_signal:
            urgent_signal.handle(lambda: _capture_by_signal(control))

    def detach(self) -> None:
        commands.detach()
        urgent_signal.release()

    def confirm_suspicion(self) -> None:
        """Orders a census of the task of which the reporter suspects a leak, once for each order.

        One that is refused, as another is being taken, is not ordered again: the reporter asks
        again if the suspicion stands.
        """
        number, task = self._writer.page.suspect.read()
        if number == self._confirmed or self._control is None:
            return
        self._confirmed = number
        wanted = Wanted(CONFIRMING_RUNS, CONFIRMING_S, self._settings.max_added_latency, task)
        with contextlib.suppress(RefusedError):
            begin_census(self._control, wanted)

    def _wake(self) -> None:
        """Makes a capture include current runs: children read commands only at their next task."""
        if self._recorder is not None and self._recorder.tracing is not None:
            _capture_now(self._recorder)
        elif self._settings.capture_signal:
            urgent_signal.send([pid for pid, _ in self._children()])


def _capture_now(recorder: TaskRecorder) -> None:
    if recorder.tracing is not None:
        recorder.tracing.capture_now()


def _capture_by_signal(control: WorkerControl) -> None:
    try:
        message = begin_capture(control, Wanted(0, SIGNAL_CAPTURE_S, ALLOWANCE_S), signal=True)
    except RefusedError as why:
        message = f"SIGURG: {why}"
    logger.warning("otel_celery_memory: %s", message)


def _with_pid(view: dict[str, Any] | None) -> dict[str, Any] | None:
    """The view for people, with this process's pid as ``main_pid``."""
    if view is None:
        return None
    shown = {name: part for name, part in view.items() if name != EVIDENCE}
    return {**shown, "main_pid": os.getpid()}
