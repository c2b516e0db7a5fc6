"""Starts and stops everything in a worker with a reporter: bootstep, signals, orderly ends.

**First to start, last to stop.** Celery orders bootsteps that do not require one another by hash
seed. `_MemoryStep.include` puts our step first, so the pool's children have sent their ends before
the reporter is asked to end.

**A cold shutdown.** Celery 5.5 and later send ``worker_shutting_down`` in a cold shutdown only when
they have waited for the tasks and the pool, which takes as long as the longest task that ignores
the request. By then the children that ended at once would have been reported as lost. So we hook
into the beginning of a cold shutdown (`on_cold_shutdown`).

**The reporter's log is the worker's.** The reporter inherits standard error, which in a detached
worker is ``/dev/null``. So `log_file_of` finds the worker's log file for it, and
`reporter/service.py` follows that file's rotation.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import click
from billiard.exceptions import TimeLimitExceeded
from billiard.process import current_process
from celery import bootsteps, signals
from celery.utils.nodenames import node_format

from otel_celery_memory.ipc.records import (
    MAIN_SLOT,
    Goodbye,
    TaskOverdue,
    WorkerStopping,
    tally_text,
)
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.lifecycle.announcement import announce, section
from otel_celery_memory.worker.lifecycle.child_exits import ChildExitObserver, ChildExits
from otel_celery_memory.worker.lifecycle.embedded import (
    open_writer,
    runs_tasks_in_children,
)
from otel_celery_memory.worker.lifecycle.periodic_checks import PeriodicChecks
from otel_celery_memory.worker.lifecycle.supervisor import Supervisor
from otel_celery_memory.worker.lifecycle.worker_events import WorkerEvents
from otel_celery_memory.worker.measuring.signals import (
    TaskSignals,
    connect,
    disconnect,
    lines_of_send,
)
from otel_celery_memory.worker.measuring.spans import TaskSpans
from otel_celery_memory.worker.measuring.task_recorder import TaskRecorder
from otel_celery_memory.worker.measuring.time_limits import TimeLimits
from otel_celery_memory.worker.record_writer import RecordWriter
from otel_celery_memory.worker.remote_control.requests import (
    ChildRequests,
    WorkerRequests,
    current_view,
)

logger = logging.getLogger(__name__)

_IN_PROCESS = "the processes that run them"


def log_file_of(worker: Any) -> str:
    """The absolute path of ``--logfile`` in the main process; empty if there is none."""
    named = getattr(worker, "logfile", None)
    # Celery accepts open files too.
    if not isinstance(named, str) or not named:
        return ""
    return str(Path(node_format(named, worker.hostname)).absolute())


def on_cold_shutdown(worker: Any, begins: Callable[[], None]) -> None:
    """Calls ``begins`` when the worker begins a cold shutdown, if its Celery has a soft one.

    A cold shutdown first calls ``WorkController.wait_for_soft_shutdown``, even if there is nothing
    to wait for.
    """
    wait = getattr(worker, "wait_for_soft_shutdown", None)
    if wait is None:
        return

    def begins_and_waits() -> None:
        begins()
        wait()

    worker.wait_for_soft_shutdown = begins_and_waits


class Lifecycle(Protocol):
    """What the bootstep calls."""

    def start(self, worker: Any) -> None:
        """Called when the worker starts."""

    def follow_pool(self) -> None:
        """Called when the pool has set its callbacks."""

    def detach(self) -> None:
        """Called when the worker ends."""

    def info(self) -> dict[str, Any]:
        """The section ``memory`` of ``celery inspect stats``."""


class _MemoryStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts before every other step of the worker and stops after them."""

    label = "Memory"
    lifecycle: Lifecycle

    def include(self, parent: Any) -> bool:
        # The order of steps that do not require one another depends on the hash seed. The first
        # step to start is the last to stop: the pool's children have ended by then.
        self.obj = self
        parent.steps.insert(0, self)
        return True

    def start(self, parent: Any) -> None:
        try:
            self.lifecycle.start(parent)
        except OSError as error:
            # The pool is not forked yet: its children will measure and export by themselves.
            logger.warning("otel_celery_memory: no reporter (%s), delivery is in process", error)
            self.lifecycle.detach()
        except Exception:
            logger.exception("otel_celery_memory: the worker runs without being measured")
            self.lifecycle.detach()

    def register_with_event_loop(self, parent: Any, hub: Any) -> None:
        # Called after the pool, which sets its callbacks again whenever it is called.
        self.lifecycle.follow_pool()

    def info(self, parent: Any) -> dict[str, Any]:
        try:
            return {"memory": self.lifecycle.info()}
        except Exception:
            logger.exception("otel_celery_memory: the statistics have no section of memory")
            return {}

    def stop(self, parent: Any) -> None:
        self.lifecycle.detach()

    def terminate(self, parent: Any) -> None:
        self.lifecycle.detach()


def step_of(lifecycle: Lifecycle) -> type[bootsteps.StartStopStep]:
    """A class for this lifecycle: Celery makes the instance, and can pass it nothing of ours."""
    return type("MemoryStep", (_MemoryStep,), {"lifecycle": lifecycle, "name": "Memory"})


class _RefusingStep(bootsteps.Step):  # type: ignore[misc]
    """Keeps a worker from starting."""

    label = "Memory"
    error: Exception

    def include(self, parent: Any) -> bool:
        # On the command line, one line and no traceback.
        if click.get_current_context(silent=True) is not None:
            raise click.ClickException(str(self.error))
        raise self.error


def refuse(worker: Any, error: Exception) -> None:
    """Lets the worker fail with this error; called while ``worker_init`` is sent.

    What a receiver of a signal raises is only logged.
    """
    step = type("RefusingStep", (_RefusingStep,), {"error": error, "name": "Memory"})
    worker.app.steps["worker"].add(step)


class InProcessLifecycle:
    """Of a worker without a reporter: its processes measure and export by themselves."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._added: tuple[Any, type[bootsteps.StartStopStep]] | None = None

    def attach(self, worker: Any) -> None:
        """Will say in the worker's log how it is measured; called while ``worker_init`` is sent."""
        if self._added is None:
            steps = worker.app.steps["worker"]
            self._added = (steps, step_of(self))
            steps.add(self._added[1])

    def start(self, worker: Any) -> None:
        """Says that its tasks are measured, and by whom."""
        announce(self._settings, _IN_PROCESS)

    def follow_pool(self) -> None:
        """Nothing: each process sees its own end."""

    def detach(self) -> None:
        """Leaves no step behind."""
        if self._added is not None:
            steps, step = self._added
            steps.discard(step)
            self._added = None

    def info(self) -> dict[str, Any]:
        """What the main process knows, if it runs the tasks."""
        return section(self._settings, _IN_PROCESS, current_view())


class WorkerLifecycle:
    """The lifecycle of a worker with a reporter, one worker of this process at a time."""

    def __init__(self, settings: Settings, spans: TaskSpans) -> None:
        self._settings = settings
        self._spans = spans
        self._worker: Any = None
        self._step: type[bootsteps.StartStopStep] | None = None
        self._writer: RecordWriter | None = None
        self._supervisor: Supervisor | None = None
        self._recorder: TaskRecorder | None = None
        self._signals: TaskSignals | None = None
        self._exit_observer: ChildExitObserver | None = None
        self._requests: WorkerRequests | None = None
        self._stopping = False
        self._checks: PeriodicChecks | None = None
        self._main_pid = 0

    @property
    def attached(self) -> bool:
        """Whether a worker is being measured."""
        return self._writer is not None

    def attach(self, worker: Any) -> None:
        """Prepares the measurement of a worker; called while ``worker_init`` is sent.

        Raises `OSError` if the memory cannot be created: nothing is attached then.
        """
        if self.attached:
            logger.warning("otel_celery_memory: a second worker in one process is not measured")
            return
        max_memory_kib = int(getattr(worker, "max_memory_per_child", None) or 0)
        self._writer = open_writer(worker, max_memory_kib)
        self._main_pid = os.getpid()
        self._stopping = False
        self._worker = worker
        self._exit_observer = ChildExitObserver(ChildExits(self._writer, self._writer.page))
        self._recorder = TaskRecorder(
            self._writer,
            self._settings,
            self._spans,
            self._writer.page,
            called_from=lines_of_send(),
        )
        self._recorder.time_limits = TimeLimits(
            getattr(worker, "time_limit", None), getattr(worker, "soft_time_limit", None)
        )
        self._recorder.max_memory_kib = max_memory_kib
        self._requests = WorkerRequests(
            self._settings,
            self._writer,
            self._exit_observer.children,
            lambda: not self._stopping,
        )
        self._supervisor = Supervisor(
            self._writer, self._settings, worker.hostname, max_memory_kib, log_file_of(worker)
        )
        self._checks = PeriodicChecks(
            worker,
            self._writer,
            self._supervisor,
            self._exit_observer,
            self._requests.confirm_suspicion,
            WorkerEvents(
                worker, self._writer.status.read, self._settings.worker_event_interval
            ).send_if_due,
        )
        # Before the pool builds its tasks' tracers: they check for receivers only once.
        self._signals = TaskSignals(self._recorder, worker.app.loader)
        self._signals.connect()
        for signal, receiver in self._receivers():
            connect(signal, receiver)
        on_cold_shutdown(worker, self._shutting_down)
        atexit.register(self.detach)
        self._step = step_of(self)
        worker.app.steps["worker"].add(self._step)

    def start(self, worker: Any) -> None:
        """Starts the reporter first, so that it misses nothing."""
        assert self._recorder is not None and self._supervisor is not None
        assert self._requests is not None
        self._supervisor.start()
        self._recorder.begin(MAIN_SLOT, runs_tasks=not runs_tasks_in_children(worker))
        self._requests.attach(self._recorder)
        announce(self._settings, f"the reporter, process {self._supervisor.pid}")

    def info(self) -> dict[str, Any]:
        """What the reporter knows of the worker."""
        pid = None if self._supervisor is None else self._supervisor.pid
        return section(self._settings, f"the reporter, process {pid}", current_view())

    def _worker_ready(self, **_: object) -> None:
        """Starts the checks after the fork: with some brokers the timer is a thread."""
        if self._checks is not None:
            self._checks.begin()

    def follow_pool(self) -> None:
        """Observes the exits of the pool's children."""
        if self._checks is not None:
            self._checks.follow_pool()

    def detach(self, *_: object) -> None:
        """Sends `Goodbye`, lets the reporter export what it has, and leaves nothing behind."""
        if not self.attached or os.getpid() != self._main_pid:
            return
        assert self._writer is not None and self._supervisor is not None
        writer, self._writer = self._writer, None
        if self._requests is not None:
            self._requests.detach()
            self._requests = None
        if self._checks is not None:
            self._checks.end()
            self._checks = None
        self._disconnect()
        if self._exit_observer is not None:
            self._exit_observer.release()
            self._exit_observer = None
        if self._recorder is not None:
            self._recorder.end(0)
            self._recorder.stop()
        writer.send(Goodbye(os.getpid(), time.time_ns()))
        started = self._supervisor.pid is not None
        try:
            self._supervisor.stop()
            if started:
                self._log_tally(writer, self._supervisor.restarts)
        finally:
            writer.close()
        atexit.unregister(self.detach)

    @staticmethod
    def _log_tally(writer: RecordWriter, restarts: int) -> None:
        """Says how many tasks the reporter has counted until its end."""
        view = writer.status.read()
        if view is not None:
            dropped = writer.page.drop_counters.counts().total
            logger.info("%s", tally_text(view["measured"], dropped, restarts))

    def stop_tracing(self) -> None:
        """Stops allocation tracing in this process, for ``uninstrument()``."""
        if self._recorder is not None:
            self._recorder.stop_tracing()

    def _disconnect(self) -> None:
        if self._signals is not None:
            self._signals.disconnect()
        for signal, receiver in self._receivers():
            disconnect(signal, receiver)
        if self._step is not None and self._worker is not None:
            self._worker.app.steps["worker"].discard(self._step)

    def _receivers(self) -> list[tuple[Any, Callable[..., None]]]:
        return [
            (signals.worker_process_init, self._child_up),
            (signals.worker_process_shutdown, self._child_down),
            (signals.task_failure, self._task_failed),
            (signals.worker_ready, self._worker_ready),
            (signals.worker_shutting_down, self._shutting_down),
            (signals.worker_shutdown, self._worker_shutdown),
        ]

    def _child_up(self, **_: object) -> None:
        # The solo pool sends this from the main process, which `start` has begun already.
        if os.getpid() == self._main_pid or self._writer is None or self._recorder is None:
            return
        self._writer.attach(int(getattr(current_process(), "index", 0)))
        self._recorder.begin(self._writer.slot)
        ChildRequests(self._settings, self._writer.page, self._main_pid).attach(self._recorder)

    def _child_down(self, exitcode: object = None, **_: object) -> None:
        if os.getpid() != self._main_pid and self._recorder is not None:
            self._recorder.end(exitcode or 0)

    def _shutting_down(self, **_: object) -> None:
        """From now on the worker itself terminates children in their tasks."""
        self._stopping = True
        if self._writer is not None and os.getpid() == self._main_pid:
            self._writer.send(WorkerStopping(self._main_pid, time.time_ns()))

    def _worker_shutdown(self, **_: object) -> None:
        """Also sent if the worker fails before all its steps have started, and none is stopped."""
        self.detach()

    def _task_failed(
        self, sender: Any = None, task_id: str = "", exception: object = None, **_: object
    ) -> None:
        """Sends the time limit for which the main process will kill a child: the child cannot."""
        if not isinstance(exception, TimeLimitExceeded):
            return
        if os.getpid() == self._main_pid and self._writer is not None:
            name = getattr(sender, "name", "")
            self._writer.send(TaskOverdue(self._main_pid, time.time_ns(), str(task_id), name))
