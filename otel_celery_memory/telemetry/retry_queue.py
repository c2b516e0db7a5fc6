"""Keeps events while no endpoint acknowledges them, and sends them again.

The SDK's exporter drops a batch after ten seconds, or at once if the connection is closed. Metrics
are cumulative, so the next export makes good for a lost one. An event is emitted only once.
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

EVENTS_MAX = 2_048
"""Most events that wait, of some kilobytes each; beyond that the oldest batch is dropped."""
RETRY_S = 2.0
_REFUSED_MAX = 3
"""A batch that was refused this often while others were accepted is dropped: it is at fault."""


@dataclass
class _Batch:
    events: Sequence[Any]
    refused: int = 0


class RetryQueue:
    """Wraps an exporter of log records; keeps the batches that it could not send."""

    def __init__(
        self,
        exporter: Any,
        acknowledged: Callable[[Sequence[Any]], None] = lambda events: None,
        retry_s: float = RETRY_S,
    ) -> None:
        """``acknowledged`` is called with each batch that the endpoint has acknowledged."""
        self._exporter = exporter
        self._acknowledged = acknowledged
        self._retry_s = retry_s
        self._waiting: deque[_Batch] = deque()
        self._lock = Lock()
        self._retrying = False
        self._thread = Thread()
        self._ended = Event()

    def export(self, batch: Sequence[Any]) -> Any:
        """Sends a batch and returns the exporter's result; keeps a batch that could not be sent."""
        with self._lock:
            result = self._try(batch)
            if _succeeded(result):
                self._acknowledged(batch)
                self._send_waiting(others_accepted=True)
            else:
                self._waiting.append(_Batch(tuple(batch)))
                self._trim()
            self._start_retrying()
            return result

    def _try(self, batch: Sequence[Any]) -> Any:
        try:
            return self._exporter.export(batch)
        except Exception as error:
            # Before 1.39 the exporter raises if the connection is closed twice in a row.
            logger.warning("Failed to export logs batch: %s", error)
            return None

    def _send_waiting(self, others_accepted: bool) -> None:
        for _ in range(len(self._waiting)):
            batch = self._waiting[0]
            if _succeeded(self._try(batch.events)):
                self._waiting.popleft()
                self._acknowledged(batch.events)
                others_accepted = True
                continue
            if not others_accepted:
                return
            self._waiting.popleft()
            batch.refused += 1
            if batch.refused < _REFUSED_MAX:
                self._waiting.append(batch)

    def _trim(self) -> None:
        while (
            len(self._waiting) > 1 and sum(len(each.events) for each in self._waiting) > EVENTS_MAX
        ):
            self._waiting.popleft()

    def _start_retrying(self) -> None:
        if self._waiting and not self._retrying and not self._ended.is_set():
            self._retrying = True
            try:
                self._thread = Thread(target=self._retry, daemon=True)
                self._thread.start()
            except RuntimeError:  # no thread could be started: the next batch retries
                self._retrying = False

    def _retry(self) -> None:
        while True:
            ended = self._ended.wait(self._retry_s)
            with self._lock:
                if not ended:
                    self._send_waiting(others_accepted=False)
                if ended or not self._waiting:
                    self._retrying = False
                    return

    def shutdown(self) -> None:
        """Retries once more. Takes as long as the exporter does; the caller bounds the time."""
        self._ended.set()
        with self._lock:
            self._send_waiting(others_accepted=False)
            thread = self._thread
        if thread.ident is not None:
            thread.join()
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flushes the wrapped exporter. Waiting batches are left to the retries."""
        return bool(self._exporter.force_flush(timeout_millis))


def _succeeded(result: Any) -> bool:
    # Release 1.39 renamed the result's class, not its members.
    return getattr(result, "name", "") == "SUCCESS"


def lost_pids(events: Sequence[Any]) -> list[int]:
    """The pids of the lost processes that these log records report."""
    records = [event.log_record for event in events]
    return [
        record.attributes[c.PROCESS_PID]
        for record in records
        if record.event_name == c.PROCESS_LOST.name and c.PROCESS_PID in (record.attributes or {})
    ]
