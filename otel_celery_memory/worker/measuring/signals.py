"""Connects the recorder to Celery's signals, in the right order.

Our receiver of ``task_postrun`` must come first. Celery calls receivers in the order in which they
were connected, and its OpenTelemetry instrumentation ends the task's span in one: attributes set
after that are lost. So ours is moved to the head of the list, whichever was connected first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from celery import signals

from otel_celery_memory.worker.measuring.task_recorder import TaskRecorder

_UID = "otel_celery_memory"


class TaskSignals:
    """Connects a recorder to ``task_prerun`` and ``task_postrun``, and to the loader's hook."""

    def __init__(self, recorder: TaskRecorder, loader: Any = None) -> None:
        """``loader`` is the app's; its tasks' tracers have not been built yet."""
        self._recorder = recorder
        self._task_init = None if loader is None else TaskInit(loader, recorder.task_init)

    def connect(self) -> None:
        connect(signals.task_prerun, self._recorder.prerun)
        connect(signals.task_postrun, self._recorder.postrun, first=True)
        if self._task_init is not None:
            self._task_init.connect()

    def disconnect(self) -> None:
        disconnect(signals.task_prerun, self._recorder.prerun)
        disconnect(signals.task_postrun, self._recorder.postrun)
        if self._task_init is not None:
            self._task_init.disconnect()


class TaskInit:
    """Calls a function with the task as Celery calls ``loader.on_task_init``: just before its code.

    Sending ``task_prerun`` frees what Celery made for it only when our receiver has returned.
    """

    def __init__(self, loader: Any, called: Callable[[Any], object]) -> None:
        self._loader = loader
        self._called = called
        self._on = False
        self._ours: Callable[..., Any] | None = None
        self._replaced: Callable[..., Any] | None = None

    def connect(self) -> None:
        """From now on, for tracers that are built from now on; twice is once."""
        if self._on:
            return
        theirs, called = self._loader.on_task_init, self._called
        self._replaced = vars(self._loader).get("on_task_init")

        @functools.wraps(theirs)
        def on_task_init(task_id: Any, task: Any) -> Any:
            if self._on:
                called(task)
            return theirs(task_id, task)

        self._ours, self._on = on_task_init, True
        self._loader.on_task_init = on_task_init

    def disconnect(self) -> None:
        """Tracers that were built meanwhile call the loader's own through ours."""
        self._on = False
        if vars(self._loader).get("on_task_init") is not self._ours:
            return  # somebody has replaced it, and may call ours
        if self._replaced is None:
            del self._loader.on_task_init
        else:
            self._loader.on_task_init = self._replaced


def connect(signal: Any, receiver: Callable[..., None], *, first: bool = False) -> None:
    """Connect a receiver once, by a strong reference; ``first``: at the head of the receivers."""
    known_to_tracers = signal.receivers
    signal.connect(receiver, weak=False, dispatch_uid=_uid(receiver))
    with signal.lock:
        if first:
            at = next(i for i, entry in enumerate(signal.receivers) if entry[1] == receiver)
            signal.receivers.insert(0, signal.receivers.pop(at))
        # Celery's tracer of a task keeps the list that it found when it was built, and skips an
        # empty one. Up to Celery 5.6, clearing dead receivers makes a new list, so that the old one
        # stays empty.
        if signal.receivers is not known_to_tracers and not known_to_tracers:
            known_to_tracers.append(signal.receivers[0])


def disconnect(signal: Any, receiver: Callable[..., None]) -> None:
    """Undo `connect`."""
    signal.disconnect(dispatch_uid=_uid(receiver))


def lines_of_send() -> tuple[str, int, int]:
    """File, first and last line of the function of Celery's that calls our receivers."""
    code = type(signals.task_prerun).send.__code__
    lines = [line for _, _, line in code.co_lines() if line is not None]
    return code.co_filename, code.co_firstlineno, max(lines, default=code.co_firstlineno)


def _uid(receiver: Callable[..., None]) -> str:
    return f"{_UID}.{receiver.__qualname__}"


def signal_being_sent() -> tuple[Any, Any] | None:
    """The Celery signal in whose receiver we are called, and its sender; ``None`` outside of one.

    What ``instrument()`` does depends on where it is called: in a pool child, the signals that
    would start us have been sent already. Celery keeps no record of the signal being sent, but
    its frame is on the stack.
    """
    import sys

    code = type(signals.task_prerun).send.__code__
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is code:
            return frame.f_locals.get("self"), frame.f_locals.get("sender")
        frame = frame.f_back  # type: ignore[assignment]
    return None
