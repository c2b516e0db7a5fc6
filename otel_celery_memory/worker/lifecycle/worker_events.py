"""``worker-memory``: an event for consumers of Celery's own events, such as Flower.

The main process sends it, at most every so many seconds, on its timer and by the dispatcher that
its heartbeats go through. So it needs no ``-E``. Each field becomes an attribute of the worker in
``celery.events.state``: none has a name that Celery uses there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

EVENT = "worker-memory"
_VERDICTS_MAX = 5
_TEXT_MAX = 1_000


class WorkerEvents:
    """Sends what the reporter knows of the worker; nothing while it knows nothing."""

    def __init__(
        self,
        worker: Any,
        view: Callable[[], Mapping[str, Any] | None],
        interval_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """``interval_s``: the least time between two events; 0 for none at all."""
        self._worker = worker
        self._view = view
        self._interval_s = interval_s
        self._clock_s = clock_s
        self._due_s = 0.0

    def send_if_due(self) -> None:
        """Sends an event if it is time for one, and there is a connection to the broker."""
        if self._interval_s <= 0 or self._clock_s() < self._due_s:
            return
        dispatcher = getattr(getattr(self._worker, "consumer", None), "event_dispatcher", None)
        if dispatcher is None or not dispatcher.enabled:
            return  # it is set anew with each connection
        view = self._view()
        if view is None:
            return
        self._due_s = self._clock_s() + self._interval_s
        dispatcher.send(EVENT, **fields_of(view))


def fields_of(view: Mapping[str, Any]) -> dict[str, Any]:
    """What an event has: bytes of main and children together, and the verdicts in words.

    ``unique`` is ``None`` until it is known of each process.
    """
    processes = view["processes"]
    return {
        "rss": sum(_known(each["rss"] for each in processes)),
        "unique": _all(each["unique"] for each in processes),
        "processes": len(processes),
        "verdicts": [each["text"][:_TEXT_MAX] for each in view["verdicts"][:_VERDICTS_MAX]],
    }


def _known(sizes: Iterable[int | None]) -> list[int]:
    return [size for size in sizes if size is not None]


def _all(sizes: Iterable[int | None]) -> int | None:
    found = list(sizes)
    known = _known(found)
    return sum(known) if found and len(known) == len(found) else None
