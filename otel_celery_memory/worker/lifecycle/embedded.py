"""A process that measures itself: one without a reporter, or a spawned child.

Spawned children inherit no descriptors, so they map their worker's rings and control page by name.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from billiard.process import current_process
from celery import signals

from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import MAIN_SLOT
from otel_celery_memory.ipc.ring import RingMemory
from otel_celery_memory.ipc.shared_memory import VARIABLE, SpawnDirectory
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
from otel_celery_memory.worker.record_writer import RecordSink, RecordWriter
from otel_celery_memory.worker.remote_control.requests import ChildRequests, Requests

logger = logging.getLogger(__name__)

_OPEN = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class EmbeddedLifecycle:
    """Measures one process from now to its end, and the children that a pool forks from it."""

    def __init__(
        self,
        sink: RecordSink,
        end_sink: Callable[[], None],
        settings: Settings,
        spans: TaskSpans,
        page: ControlPage,
        requests: Requests,
        max_memory_kib: int = 0,
        own_work: Callable[[], int] = lambda: 0,
    ) -> None:
        """``own_work``: how often something of ours was done in this process beside measuring."""
        self._end_sink = end_sink
        self._requests = requests
        self._recorder = TaskRecorder(
            sink, settings, spans, page, called_from=lines_of_send(), own_work=own_work
        )
        self._recorder.max_memory_kib = max_memory_kib
        self._signals = TaskSignals(self._recorder)
        self._pid = 0

    def begin(self) -> None:
        """Starts measuring the tasks of this process."""
        self._signals.connect()
        for signal, receiver in self._receivers():
            connect(signal, receiver)
        self._announce()
        self._requests.attach(self._recorder)

    def end(self) -> None:
        """Stops measuring, and sends what has been measured."""
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
        """Stops allocation tracing in this process, for ``uninstrument()``."""
        self._recorder.stop_tracing()

    def _announce(self) -> None:
        self._pid = os.getpid()
        self._recorder.begin(int(getattr(current_process(), "index", MAIN_SLOT)))

    def _process_up(self, **_: object) -> None:
        if os.getpid() != self._pid:
            self._announce()

    def _process_down(self, exitcode: object = None, **_: object) -> None:
        if os.getpid() == self._pid:
            self._recorder.end(exitcode or 0)
            self._end_sink()

    def _worker_down(self, **_: object) -> None:
        if os.getpid() == self._pid:
            self.end()


class NamedRecordWriter(RecordWriter):
    """The main process's writer, whose memory children open by its name."""

    def __init__(self, children: int, max_memory_kib: int) -> None:
        """Raises `OSError` if the directory or the memory cannot be created."""
        self._directory = SpawnDirectory.create(max_memory_kib)
        try:
            page = ControlPage.in_file(_new_file(self._directory.page))
            try:
                path = self._directory.rings
                rings = RingMemory.in_file(_new_file(path), children, str(path))
                super().__init__(children, page, rings)
            except OSError:
                page.close()
                raise
        except OSError:
            self._directory.remove()
            raise
        os.environ[VARIABLE] = self._directory.environ_value()

    def close(self) -> None:
        super().close()
        if os.environ.get(VARIABLE) == self._directory.environ_value():
            del os.environ[VARIABLE]
        self._directory.remove()


def _new_file(path: Path) -> int:
    return moved_high(os.open(path, _OPEN | os.O_CREAT | os.O_EXCL, 0o600))


def open_writer(worker: Any, max_memory_kib: int) -> RecordWriter:
    """The writer for a worker and its pool; raises `OSError` if there is no memory."""
    children = _children_of(worker) if runs_tasks_in_children(worker) else 0
    if _spawns(worker):
        return NamedRecordWriter(children, max_memory_kib)
    return RecordWriter(children)


def _children_of(worker: Any) -> int:
    """How many children the pool may have; it may still be told to grow."""
    counts = [getattr(worker, "concurrency", None) or os.cpu_count() or 1]
    autoscale = getattr(worker, "autoscale", None)  # "most,least", or a pair
    if autoscale:
        parts = autoscale.split(",") if isinstance(autoscale, str) else autoscale
        with contextlib.suppress(TypeError, ValueError):
            counts += [int(part) for part in parts]
    return max(counts)


def _spawns(worker: Any) -> bool:
    """Whether the pool spawns: a setting of Celery 5.7, the default if fork is unsafe (macOS)."""
    from billiard import get_start_method

    methods = (getattr(worker, "pool_start_method", None), get_start_method(allow_none=True))
    return runs_tasks_in_children(worker) and any(
        method not in (None, "fork") for method in methods
    )


def runs_tasks_in_children(worker: Any) -> bool:
    """Whether the worker's pool is prefork."""
    # Not at the top: gevent or eventlet may have to patch what this imports first.
    from celery.concurrency.prefork import TaskPool as PreforkPool

    pool = worker.pool_cls
    return isinstance(pool, type) and issubclass(pool, PreforkPool)


def join_worker(settings: Settings, spans: TaskSpans) -> EmbeddedLifecycle | None:
    """Measures this spawned child for its worker's reporter; ``None`` if there is no reporter."""
    directory = SpawnDirectory.from_environ(os.environ)
    if directory is None or directory.main_pid != os.getppid() or not directory.is_private():
        return None
    try:
        writer = _open_worker_memory(directory)
    except (OSError, ValueError) as error:
        logger.warning("otel_celery_memory: the reporter cannot be reached: %s", error)
        return None
    lifecycle = EmbeddedLifecycle(
        writer,
        writer.close,
        settings,
        spans,
        writer.page,
        ChildRequests(settings, writer.page, directory.main_pid),
        directory.max_memory_kib,
    )
    lifecycle.begin()
    return lifecycle


def _open_worker_memory(directory: SpawnDirectory) -> RecordWriter:
    with contextlib.ExitStack() as opened:
        page_fd = _opened(directory.page)
        made = opened.enter_context(contextlib.ExitStack())
        made.callback(os.close, page_fd)
        page = ControlPage(page_fd)
        made.pop_all()
        opened.callback(page.close)
        rings_fd = _opened(directory.rings)
        made.callback(os.close, rings_fd)
        rings = RingMemory(rings_fd, str(directory.rings))
        made.pop_all()
        slot = int(getattr(current_process(), "index", MAIN_SLOT))
        writer = RecordWriter(page=page, rings=rings, slot=slot)
        opened.pop_all()
    return writer


def _opened(path: Path) -> int:
    fd = os.open(path, _OPEN)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(f"{path} is no file")
    return moved_high(fd)
