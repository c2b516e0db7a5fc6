"""A soft time limit may strike anywhere in our code: later tasks are measured as if it had not."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

import otel_celery_memory
from otel_celery_memory.ipc.records import TaskFinished
from tests.unit.forks import in_a_fork
from tests.unit.worker.recorder_bench import EAGER, PLAIN, Child

OURS = str(Path(otel_celery_memory.__file__).parent)
AGAIN = "time_limits.py"
"""Billiard sends the signal once a task: what is done about it is not struck."""


class Strike:
    """Raises at the so-and-so-manieth place in our code where the interpreter lets signals in.

    That is where a function begins and after a call of one in C (``CHECK_EVAL_BREAKER`` in
    Python/ceval.c); nowhere else, so that ``with lock:`` and ``finally:`` can be relied on.
    """

    def __init__(self, number: int) -> None:
        self._left = number

    @property
    def came(self) -> bool:
        """Whether there were so many places."""
        return self._left <= 0

    def __call__(self, receiver: Callable[..., None], *args: Any) -> None:
        """Call one of our receivers, as Celery does: what comes out of it is logged."""
        if not self.came:
            sys.setprofile(self._passed)
        with contextlib.suppress(SoftTimeLimitExceeded):
            try:
                receiver(*args)
            finally:
                sys.setprofile(None)

    def _passed(self, frame: FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        ours = code.co_filename.startswith(OURS) and not code.co_filename.endswith(AGAIN)
        # As a receiver begins nothing has been done: it is as if Celery had been struck.
        begins = event == "call" and code.co_name in ("prerun", "postrun")
        if self.came or not ours or begins or event not in ("call", "c_return"):
            return
        self._left -= 1
        if self.came:
            raise SoftTimeLimitExceeded


def plain(child: Child, task: Any, strike: Strike) -> None:
    """A task, and nothing else."""
    strike(child.recorder.prerun, "outer", task)
    assert not child.idle()
    strike(child.recorder.postrun, "outer", task, "SUCCESS")


def with_others_inside(child: Child, task: Any, strike: Strike) -> None:
    """A task that applies two others."""
    strike(child.recorder.prerun, "outer", task)
    assert not child.idle()
    for name in ("first", "second"):
        strike(child.recorder.prerun, name, EAGER)
        strike(child.recorder.postrun, name, EAGER, "SUCCESS")
    strike(child.recorder.postrun, "outer", task, "SUCCESS")


def strike_everywhere(task: Any, sequence: Callable[[Child, Any, Strike], None]) -> None:
    """Once at each place, and then some tasks more; all of them plain, so none is traced."""
    number = 0
    while True:
        number += 1
        child = Child(tracing="off")
        child.run(task)
        strike = Strike(number)
        sequence(child, task, strike)
        assert child.held() == []
        ends = [r for r in child.told() if isinstance(r, TaskFinished) and r.task_id == "outer"]
        assert len(ends) <= 1
        if not strike.came:
            break
        child.recorder._soft_limit.ended()
        told = [child.run(task, f"after-{n}") for n in range(4)]
        # The first after it may have to put things right.
        assert PLAIN in told
        assert TaskFinished in told[-1]
        measurement: Any = child.recorder._measurement
        assert measurement._concurrent.threads == 0
        assert child.held() == []
        child.close()
    assert number > 20


@pytest.mark.parametrize("sequence", [plain, with_others_inside])
def test_wherever_it_strikes_nothing_stays_held_and_the_tasks_after_it_are_plain(
    task: Any, sequence: Callable[[Child, Any, Strike], None]
) -> None:
    # In a process of its own: as of 3.12 a profile leaves something with all code that runs later.
    in_a_fork(lambda: strike_everywhere(task, sequence))
