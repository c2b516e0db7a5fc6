"""A task's time limits: the message's before its class's before the worker's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from otel_celery_memory.worker.measuring.time_limits import TimeLimits


def task(timelimit: Any = None, hard_s: float | None = None, soft_s: float | None = None) -> Any:
    """A task with the limits of its message and of its class."""
    request = SimpleNamespace(timelimit=timelimit)
    return SimpleNamespace(request=request, time_limit=hard_s, soft_time_limit=soft_s)


@pytest.mark.parametrize(
    ("of_task", "of_worker", "shortest_s"),
    [
        (task(), TimeLimits(), None),
        (task((None, None)), TimeLimits(), None),
        (task(), TimeLimits(60, 50), 50),
        (task(), TimeLimits(40, 50), 40),
        (task(hard_s=30), TimeLimits(60, None), 30),
        (task(soft_s=90), TimeLimits(60, 50), 60),
        (task([20, None], hard_s=30), TimeLimits(60, None), 20),
        (task([20, 10], 30, 5), TimeLimits(60, 50), 10),
        (task([100, None], hard_s=30), TimeLimits(60, None), 100),
        (task([0, 0]), TimeLimits(60, None), 60),
    ],
)
def test_the_limit_that_would_be_reached_first(
    of_task: Any, of_worker: TimeLimits, shortest_s: float | None
) -> None:
    assert of_worker.shortest_s(of_task) == shortest_s


def test_a_task_that_celery_made_has_none(task: Any) -> None:
    assert TimeLimits().shortest_s(task) is None
    assert TimeLimits(9.0, 8.0).shortest_s(task) == 8.0
