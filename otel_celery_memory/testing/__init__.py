"""Tests of tasks for leaks: `assert_no_leak`, a function and a fixture of pytest.

The task runs some hundred times in a forked process, whose levels are read between the runs and
judged by `otel_celery_memory.leaks`; it raises `LeakError` or `NotMeasuredError`. `plugin` is the
entry point of pytest. In the process of the tests nothing is connected to Celery and nothing is
measured; importing this imports nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from otel_celery_memory.testing.errors import LeakError, NotMeasuredError

__all__ = ["LeakError", "NotMeasuredError", "assert_no_leak"]

RUNS, LEAST_RUNS = 300, 60
TIMEOUT_S = 60.0


def assert_no_leak(
    task: Any,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    runs: int = RUNS,
    timeout_s: float = TIMEOUT_S,
    raises: type[BaseException] | tuple[type[BaseException], ...] = (),
    set_up: Callable[[], object] | None = None,
) -> None:
    """Runs a Celery task in a process of its own, and raises `LeakError` if it leaks.

    ``args`` and ``kwargs`` pass through the task's serializer before each run, as through a broker.
    Of the ``runs``, of which 60 are needed, the first sixth is warm-up. ``timeout_s`` is for all of
    them together. ``raises`` are exceptions that runs may end with. ``set_up`` is called in the
    process before the first run.

    Raises `NotMeasuredError` where a run raises something else, takes too long or ends its process,
    or where the arguments cannot be sent; `TypeError` and `ValueError` for what cannot be asked.
    """
    __tracebackhide__ = True
    if not callable(getattr(task, "apply", None)) or not isinstance(
        getattr(task, "name", None), str
    ):
        raise TypeError(f"{task!r} is no task of Celery: it has no name and no apply()")
    if runs < LEAST_RUNS:
        raise ValueError(f"{runs} runs say nothing: at least {LEAST_RUNS} are needed")
    if not timeout_s > 0:
        raise ValueError(f"timeout_s is {timeout_s}: seconds above 0 are needed")
    from otel_celery_memory.testing.runs import judge

    leak = judge(task, args, kwargs or {}, runs, timeout_s, raises, set_up)
    if leak:
        raise LeakError(leak)
