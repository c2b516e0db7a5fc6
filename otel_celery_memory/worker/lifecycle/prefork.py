"""When things begin and end in a worker: its bootstep, its children's signals, its goodbyes."""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from billiard.exceptions import TimeLimitExceeded
from billiard.process import current_process
from celery import bootsteps, signals

from otel_celery_memory.ipc.records import MAIN_SLOT, Goodbye, TaskOverdue, WorkerStopping
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.lifecycle.bootstep import step_of
from otel_celery_memory.worker.lifecycle.child_ends import ChildEnds
from otel_celery_memory.worker.lifecycle.child_exits import Reaper
from otel_celery_memory.worker.lifecycle.cold_shutdown import hear_of_cold_shutdown
from otel_celery_memory.worker.lifecycle.log_file import log_file_of
from otel_celery_memory.worker.lifecycle.periodic_checks import Checks
from otel_celery_memory.worker.lifecycle.spawned_children import (
    open_channel,
    runs_tasks_in_children,
)
from otel_celery_memory.worker.lifecycle.supervisor import Supervisor
from otel_celery_memory.worker.measuring.signals import (
    TaskSignals,
    connect,
    disconnect,
    lines_of_send,
)
from otel_celery_memory.worker.measuring.spans import TaskSpans
from otel_celery_memory.worker.measuring.task_recorder import Recorder
from otel_celery_memory.worker.measuring.time_limits import TimeLimits
from otel_celery_memory.worker.pipe import Channel
from otel_celery_memory.worker.remote_control.requests import ChildRequests, WorkerRequests

logger = logging.getLogger(__name__)


class WorkerLifecycle:
    """The worker side with a reporter, for one worker of this process at a time."""

    def __init__(self, settings: Settings, spans: TaskSpans) -> None:
        self._settings = settings
        self._spans = spans
        self._worker: Any = None
        self._step: type[bootsteps.StartStopStep] | None = None
        self._channel: Channel | None = None
        self._supervisor: Supervisor | None = None
        self._recorder: Recorder | None = None
        self._signals: TaskSignals | None = None
        self._reaper: Reaper | None = None
        self._requests: WorkerRequests | None = None
        self._stopping = False
        self._checks: Checks | None = None
        self._main_pid = 0

    @property
    def attached(self) -> bool:
        """Whether a worker is being measured."""
        return self._channel is not None

    def attach(self, worker: Any) -> None:
        """Take part in the start of a worker; called while ``worker_init`` is sent.

        Raises `OSError` where there is no pipe or no memory for it: nothing is attached then.
        """
        if self.attached:
            logger.warning("otel_celery_memory: one worker in a process is measured, not two")
            return
        max_memory_kib = int(getattr(worker, "max_memory_per_child", None) or 0)
        self._channel = open_channel(worker, max_memory_kib)
        self._main_pid = os.getpid()
        self._stopping = False
        self._worker = worker
        self._reaper = Reaper(ChildEnds(self._channel, self._channel.page))
        self._recorder = Recorder(
            self._channel,
            self._settings,
            self._spans,
            self._channel.page,
            called_from=lines_of_send(),
        )
        self._recorder.time_limits = TimeLimits(
            getattr(worker, "time_limit", None), getattr(worker, "soft_time_limit", None)
        )
        self._recorder.max_memory_kib = max_memory_kib
        self._requests = WorkerRequests(
            self._settings,
            self._channel,
            self._reaper.children,
            lambda: not self._stopping,
        )
        self._supervisor = Supervisor(
            self._channel, self._settings, worker.hostname, max_memory_kib, log_file_of(worker)
        )
        self._checks = Checks(worker, self._channel, self._supervisor, self._reaper)
        # Before the pool builds its tasks' tracers, which look for receivers once.
        self._signals = TaskSignals(self._recorder)
        self._signals.connect()
        for signal, receiver in self._receivers():
            connect(signal, receiver)
        hear_of_cold_shutdown(worker, self._shutting_down)
        atexit.register(self.detach)
        self._step = step_of(self)
        worker.app.steps["worker"].add(self._step)

    def start(self, worker: Any) -> None:
        """The worker starts: the reporter first, so that it sees all."""
        assert self._recorder is not None and self._supervisor is not None
        assert self._requests is not None
        self._supervisor.start()
        self._recorder.begin(MAIN_SLOT, runs_tasks=not runs_tasks_in_children(worker))
        self._requests.attach(self._recorder)

    def _worker_ready(self, **_: object) -> None:
        """The pool has been forked: with some brokers the timer is a thread from its first use."""
        if self._checks is not None:
            self._checks.begin()

    def follow_pool(self) -> None:
        """Hear of the pool's children as they are reaped."""
        if self._checks is not None:
            self._checks.follow_pool()

    def detach(self, *_: object) -> None:
        """The worker ends: say goodbye, let the reporter send what it has, leave nothing."""
        if not self.attached or os.getpid() != self._main_pid:
            return
        assert self._channel is not None and self._supervisor is not None
        channel, self._channel = self._channel, None
        if self._requests is not None:
            self._requests.detach()
            self._requests = None
        if self._checks is not None:
            self._checks.end()
            self._checks = None
        self._disconnect()
        if self._reaper is not None:
            self._reaper.release()
            self._reaper = None
        if self._recorder is not None:
            self._recorder.end(0)
            self._recorder.stop()
        channel.send(Goodbye(os.getpid(), time.time_ns()))
        channel.close()
        self._supervisor.stop()
        atexit.unregister(self.detach)

    def stop_tracing(self) -> None:
        """For ``uninstrument()``: leave no tracing on in this process."""
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
        # The solo pool sends this from the main process, which `start` announces.
        if os.getpid() == self._main_pid or self._channel is None or self._recorder is None:
            return
        self._channel.close_read_end()
        self._channel.slot = int(getattr(current_process(), "index", 0))
        self._recorder.begin(self._channel.slot)
        ChildRequests(self._settings, self._channel.page, self._main_pid).attach(self._recorder)

    def _child_down(self, exitcode: int | None = None, **_: object) -> None:
        if os.getpid() != self._main_pid and self._recorder is not None:
            self._recorder.end(exitcode or 0)

    def _shutting_down(self, **_: object) -> None:
        """From now on children that are terminated in a task are so by the worker's will."""
        self._stopping = True
        if self._channel is not None and os.getpid() == self._main_pid:
            self._channel.send(WorkerStopping(self._main_pid, time.time_ns()))

    def _worker_shutdown(self, **_: object) -> None:
        """Also sent where the worker fails before all its steps are up, and none is stopped."""
        self.detach()

    def _task_failed(
        self, sender: Any = None, task_id: str = "", exception: object = None, **_: object
    ) -> None:
        """In the main process: a child is about to be killed, which cannot tell why."""
        if not isinstance(exception, TimeLimitExceeded):
            return
        if os.getpid() == self._main_pid and self._channel is not None:
            name = getattr(sender, "name", "")
            self._channel.send(TaskOverdue(self._main_pid, time.time_ns(), str(task_id), name))
