"""Connects the recorder to Celery's signals, in the right order.

Our receiver of ``task_postrun`` must come first. Celery calls receivers in the order in which they
were connected, and its OpenTelemetry instrumentation ends the task's span in one: attributes set
after that are lost. So ours is moved to the head of the list, whichever was connected first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import signals

from otel_celery_memory.worker.measuring.task_recorder import TaskRecorder

_UID = "otel_celery_memory"


class TaskSignals:
    """Connects a recorder to ``task_prerun`` and ``task_postrun``."""

    def __init__(self, recorder: TaskRecorder) -> None:
        self._recorder = recorder

    def connect(self) -> None:
        connect(signals.task_prerun, self._recorder.prerun)
        connect(signals.task_postrun, self._recorder.postrun, first=True)

    def disconnect(self) -> None:
        disconnect(signals.task_prerun, self._recorder.prerun)
        disconnect(signals.task_postrun, self._recorder.postrun)


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
