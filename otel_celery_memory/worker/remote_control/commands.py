"""``celery inspect memory``, ``celery control memory_capture`` and ``memory_tracing``.

Celery's own remote control: the functions here are registered where this module is imported, in
the worker and in the command line alike. They run in the main process's event loop, so they only
read a page and write a page. Whoever reaches the broker can call them: answers hold sizes, names
and places in code, nothing of theirs is a path to write to, one capture runs at a time, and they
are obeyed so many times a second only.
"""

from __future__ import annotations

from typing import Any

from celery.worker.control import control_command, inspect_command

from otel_celery_memory.ipc.commands import CAPTURE_RUNS_MAX, CAPTURE_SECONDS_MAX, TRACING_MODES
from otel_celery_memory.worker.remote_control.command_line import accept
from otel_celery_memory.worker.remote_control.table import view_text
from otel_celery_memory.worker.remote_control.validation import (
    ALLOWANCE_S,
    RUNS_WITHIN_S,
    Controlled,
    RefusedError,
    begin_capture,
    switch_tracing,
)

_controlled: list[Controlled] = []


def attach(controlled: Controlled) -> None:
    """Answer for this worker from now on."""
    _controlled[:] = [controlled]


def detach() -> None:
    """Answer for none."""
    _controlled.clear()


@inspect_command()  # type: ignore[untyped-decorator]
def memory(state: Any) -> dict[str, Any]:
    """Memory of tasks and processes: retained and traced a run, top sites, tracing."""
    try:
        controlled = _answering()
    except RefusedError as why:
        return {"error": str(why)}
    view = controlled.view()
    if view is None:
        return {"error": "there is nothing to show yet: the reporter is starting"}
    # With less task time one slowed run may cost more than the budget: its share says nothing.
    settings = controlled.settings
    share_from_s = settings.max_added_latency / settings.overhead_budget
    return {"ok": view_text(view, share_from_s), "memory": view}


@control_command(  # type: ignore[untyped-decorator]
    args=[("amount", str), ("max_added_latency", float)],
    signature="[RUNS|SECONDSs] [max_added_latency]",
)
def memory_capture(
    state: Any, amount: str = "10", max_added_latency: float = ALLOWANCE_S
) -> dict[str, Any]:
    """Trace the next runs of each process, or those of the next seconds (such as 30s)."""
    try:
        controlled = _answering()
        runs, seconds = _amount(amount)
        allowance_s = _allowance_s(max_added_latency)
        return {"ok": begin_capture(controlled, runs, seconds, allowance_s)}
    except RefusedError as why:
        return {"error": str(why)}


@control_command(  # type: ignore[untyped-decorator]
    args=[("mode", str)], signature="budget|always|off"
)
def memory_tracing(state: Any, mode: str = "") -> dict[str, Any]:
    """Trace within the budget, always or not at all, from each process's next task on."""
    try:
        controlled = _answering()
        if mode not in TRACING_MODES:
            raise RefusedError(f"the mode is one of {', '.join(TRACING_MODES)}")
        return {"ok": switch_tracing(controlled, mode)}
    except RefusedError as why:
        return {"error": str(why)}


accept(inspect=("memory",), control=("memory_capture", "memory_tracing"))


def _answering() -> Controlled:
    if not _controlled:
        raise RefusedError("this worker is not instrumented by otel_celery_memory, or not up yet")
    if not _controlled[0].settings.remote_control:
        raise RefusedError("remote control of otel_celery_memory is switched off (remote_control)")
    if not _controlled[0].rate.allows():
        raise RefusedError("too many commands within a short time: ask again in a second")
    return _controlled[0]


def _amount(text: str) -> tuple[int, float]:
    """(runs, seconds) of ``10`` or ``30s``."""
    word = str(text).strip().lower()
    try:
        if word.endswith("s"):
            seconds = float(word[:-1])
            if 1 <= seconds <= CAPTURE_SECONDS_MAX:
                return 0, seconds
        else:
            runs = int(word)
            if 1 <= runs <= CAPTURE_RUNS_MAX:
                return runs, RUNS_WITHIN_S
    except ValueError:
        pass
    raise RefusedError(
        f"{word[:40]!r} is neither runs from 1 to {CAPTURE_RUNS_MAX} nor seconds from 1s to "
        f"{CAPTURE_SECONDS_MAX:.0f}s"
    )


def _allowance_s(value: object) -> float:
    try:
        allowance_s = float(str(value))
        if 0.01 <= allowance_s <= 60:
            return allowance_s
    except ValueError:
        pass
    raise RefusedError("max_added_latency is from 0.01 to 60 seconds")
