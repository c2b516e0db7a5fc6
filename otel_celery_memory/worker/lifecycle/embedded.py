"""A process that measures itself: one without a reporter, or a child that was spawned.

Children that are spawned inherit no descriptors: they open their worker's pipe and control page by
name.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from billiard.process import current_process
from celery import signals

from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.fifo import VARIABLE, FifoDirectory
from otel_celery_memory.ipc.records import MAIN_SLOT
from otel_celery_memory.probes.descriptors import moved_high
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.measuring.signals import (
    TaskSignals,
    connect,
    disconnect,
    lines_of_send,
)
from otel_celery_memory.worker.measuring.spans import TaskSpans
from otel_celery_memory.worker.measuring.task_recorder import TaskRecorder
from otel_celery_memory.worker.pipe import PipeWriter, RecordSink
from otel_celery_memory.worker.remote_control.requests import ChildRequests, Requests

logger = logging.getLogger(__name__)

_OPEN = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class EmbeddedLifecycle:
    """Begins at once, follows the pool's forks into its children, ends with the process."""

    def __init__(
        self,
        sink: RecordSink,
        end_sink: Callable[[], None],
        settings: Settings,
        spans: TaskSpans,
        page: ControlPage,
        requests: Requests,
        max_memory_kib: int = 0,
    ) -> None:
        self._end_sink = end_sink
        self._requests = requests
        self._recorder = TaskRecorder(sink, settings, spans, page, called_from=lines_of_send())
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


class NamedPipeWriter(PipeWriter):
    """The main process's side of a pipe that children open by its name."""

    def __init__(self, max_memory_kib: int) -> None:
        """Raises `OSError` where there is no place for it."""
        self._fifo_directory = FifoDirectory.create(max_memory_kib)
        opened: list[int] = []
        try:
            # A FIFO's reader first: a writer that does not wait is refused without one.
            opened.append(os.open(self._fifo_directory.pipe, os.O_RDONLY | _OPEN))
            opened.append(os.open(self._fifo_directory.pipe, os.O_WRONLY | _OPEN))
            page = _new_page(self._fifo_directory.page)
            super().__init__((opened[0], opened[1]), page, str(self._fifo_directory.pipe))
        except OSError:
            for fd in opened:
                os.close(fd)
            self._fifo_directory.remove()
            raise
        os.environ[VARIABLE] = self._fifo_directory.environ_value()

    def close(self) -> None:
        super().close()
        if os.environ.get(VARIABLE) == self._fifo_directory.environ_value():
            del os.environ[VARIABLE]
        self._fifo_directory.remove()


def _new_page(path: Path) -> ControlPage:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = moved_high(os.open(path, flags, 0o600))
    return ControlPage.in_file(fd)


def open_pipe(worker: Any, max_memory_kib: int) -> PipeWriter:
    """The pipe for a worker's pool; raises `OSError` where there is none to be had."""
    return NamedPipeWriter(max_memory_kib) if _spawns(worker) else PipeWriter()


def _spawns(worker: Any) -> bool:
    """Celery 5.7 has a setting; billiard spawns by default where fork is not safe (macOS)."""
    from billiard import get_start_method

    ways = (getattr(worker, "pool_start_method", None), get_start_method(allow_none=True))
    return runs_tasks_in_children(worker) and any(way not in (None, "fork") for way in ways)


def runs_tasks_in_children(worker: Any) -> bool:
    """Whether the worker's pool is prefork."""
    # Not at import, which may come before gevent or eventlet patches what this brings in.
    from celery.concurrency.prefork import TaskPool as PreforkPool

    pool = worker.pool_cls
    return isinstance(pool, type) and issubclass(pool, PreforkPool)


def join_worker(settings: Settings, spans: TaskSpans) -> EmbeddedLifecycle | None:
    """Measure this spawned child and tell its worker's reporter; ``None`` where none is named."""
    directory = FifoDirectory.from_environ(os.environ)
    if directory is None or directory.main_pid != os.getppid() or not directory.is_private():
        return None
    try:
        pipe = _open_worker_pipe(directory)
    except (OSError, ValueError) as error:
        logger.warning("otel_celery_memory: the reporter cannot be reached: %s", error)
        return None
    lifecycle = EmbeddedLifecycle(
        pipe,
        pipe.close,
        settings,
        spans,
        pipe.page,
        ChildRequests(settings, pipe.page, directory.main_pid),
        directory.max_memory_kib,
    )
    lifecycle.begin()
    return lifecycle


def _open_worker_pipe(directory: FifoDirectory) -> PipeWriter:
    opened = [os.open(directory.pipe, os.O_WRONLY | _OPEN)]
    try:
        if not stat.S_ISFIFO(os.fstat(opened[0]).st_mode):
            raise OSError("its pipe is none")
        page_fd = os.open(directory.page, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        opened.append(moved_high(page_fd))
        pipe = PipeWriter((-1, opened[0]), ControlPage(opened[1]), str(directory.pipe))
    except (OSError, ValueError):
        for fd in opened:
            os.close(fd)
        raise
    pipe.slot = int(getattr(current_process(), "index", MAIN_SLOT))
    return pipe
