"""Events outlive a Collector's outage: what could not be sent is kept and tried again.

The SDK's exporter gives a batch up after ten seconds, or at once where the connection is closed
under it; metrics are cumulative and make good for that, a death that is told once does not.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Any

from otel_celery_memory import conventions as c

logger = logging.getLogger(__name__)

KEPT_MAX = 2_048
"""Events, of some kilobytes at most each; beyond these the oldest are given up."""
RETRY_S = 2.0
_REFUSED_MAX = 3
"""A batch that is refused so often while others are taken is itself what is wrong."""


@dataclass
class _Batch:
    events: Sequence[Any]
    refused: int = 0


class RetryQueue:
    """An exporter of log records before another one."""

    def __init__(
        self,
        exporter: Any,
        sent: Callable[[Sequence[Any]], None] = lambda events: None,
        retry_s: float = RETRY_S,
    ) -> None:
        """``sent`` is told of each batch that the endpoint has taken."""
        self._exporter = exporter
        self._sent = sent
        self._retry_s = retry_s
        self._kept: deque[_Batch] = deque()
        self._lock = Lock()
        self._retrying = False
        self._thread = Thread()
        self._ended = Event()

    def export(self, batch: Sequence[Any]) -> Any:
        """Send a batch; one that cannot be sent is kept, which its sender need not know."""
        with self._lock:
            result = self._try(batch)
            if _succeeded(result):
                self._sent(batch)
                self._send_kept(others_are_taken=True)
            else:
                self._kept.append(_Batch(tuple(batch)))
                self._trim()
            self._see_to_retries()
            return result

    def _try(self, batch: Sequence[Any]) -> Any:
        try:
            return self._exporter.export(batch)
        except Exception as error:
            # Before 1.39 a connection that is closed twice in a row is raised, not returned.
            logger.warning("Failed to export logs batch: %s", error)
            return None

    def _send_kept(self, others_are_taken: bool) -> None:
        for _ in range(len(self._kept)):
            batch = self._kept[0]
            if _succeeded(self._try(batch.events)):
                self._kept.popleft()
                self._sent(batch.events)
                others_are_taken = True
                continue
            if not others_are_taken:
                return
            self._kept.popleft()
            batch.refused += 1
            if batch.refused < _REFUSED_MAX:
                self._kept.append(batch)

    def _trim(self) -> None:
        while len(self._kept) > 1 and sum(len(each.events) for each in self._kept) > KEPT_MAX:
            self._kept.popleft()

    def _see_to_retries(self) -> None:
        if self._kept and not self._retrying and not self._ended.is_set():
            self._retrying = True
            try:
                self._thread = Thread(target=self._retry, daemon=True)
                self._thread.start()
            except RuntimeError:  # no thread to be had: the next event's batch will do
                self._retrying = False

    def _retry(self) -> None:
        while True:
            ended = self._ended.wait(self._retry_s)
            with self._lock:
                if not ended:
                    self._send_kept(others_are_taken=False)
                if ended or not self._kept:
                    self._retrying = False
                    return

    def shutdown(self) -> None:
        """Try once more; whoever calls this bounds its time."""
        self._ended.set()
        with self._lock:
            self._send_kept(others_are_taken=False)
            thread = self._thread
        if thread.ident is not None:
            thread.join()
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is held back here that could be sent."""
        return bool(self._exporter.force_flush(timeout_millis))


def _succeeded(result: Any) -> bool:
    # The result's class was renamed in 1.39, its members were not.
    return getattr(result, "name", "") == "SUCCESS"


def lost_pids(events: Sequence[Any]) -> list[int]:
    """The processes of which these log records tell that they were lost."""
    records = [event.log_record for event in events]
    return [
        record.attributes[c.PROCESS_PID]
        for record in records
        if record.event_name == c.PROCESS_LOST.name and c.PROCESS_PID in (record.attributes or {})
    ]
