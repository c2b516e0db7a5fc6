"""Hears of a cold shutdown before it cuts the tasks.

Celery 5.5 and later send ``worker_shutting_down`` when they are done with the tasks and the pool,
which takes as long as the longest task that does not obey. By then the children that did obey
would have been told as lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def hear_of_cold_shutdown(worker: Any, begins: Callable[[], None]) -> None:
    """Call ``begins`` when the worker begins a cold shutdown, if its Celery has a soft one.

    ``WorkController.wait_for_soft_shutdown`` is the first that a cold shutdown calls, whether or
    not there is anything to wait for.
    """
    wait = getattr(worker, "wait_for_soft_shutdown", None)
    if wait is None:
        return

    def begins_and_waits() -> None:
        begins()
        wait()

    worker.wait_for_soft_shutdown = begins_and_waits
