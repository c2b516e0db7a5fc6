"""What people ask of a worker with a reporter: remote commands and signals, and who hears them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

from otel_celery_memory.settings import Settings
from otel_celery_memory.worker import capture_signal, remote
from otel_celery_memory.worker.channel import Channel
from otel_celery_memory.worker.reaper import Reaper
from otel_celery_memory.worker.recorder import Recorder

logger = logging.getLogger(__name__)


class WorkerRequests:
    """Attached in the main process; its children hear of captures by page and by signal."""

    def __init__(
        self,
        settings: Settings,
        channel: Channel,
        recorder: Recorder,
        reaper: Reaper,
        running: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._channel = channel
        self._recorder = recorder
        self._reaper = reaper
        self._controlled = remote.Controlled(
            settings, channel.page, self._view, running, self._wake
        )

    def attach(self) -> None:
        """The worker is up: answer."""
        remote.attach(self._controlled)
        if self._settings.capture_signal:
            capture_signal.handle(self._capture_by_signal)

    def detach(self) -> None:
        """The worker ends."""
        remote.detach()
        capture_signal.release()

    def child_up(self, main_pid: int) -> None:
        """In a child of the pool."""
        remote.detach()
        if not self._settings.capture_signal:
            return

        def signalled() -> None:
            orders = self._channel.page.orders()
            if orders.capture and time.monotonic() < orders.until_s:
                self._capture_now()
            else:
                # The main process alone gives orders; it signals all children then.
                capture_signal.send([main_pid])

        capture_signal.handle(signalled)

    def _capture_by_signal(self) -> None:
        try:
            said = remote.begin_capture(
                self._controlled, 0, remote.SIGNAL_CAPTURE_S, remote.ALLOWANCE_S, signal=True
            )
        except remote.RefusedError as why:
            said = f"SIGURG: {why}"
        logger.warning("otel_celery_memory: %s", said)

    def _wake(self) -> None:
        """Children learn of orders at their next task; by signal of what they run now too."""
        if self._recorder.tracing is not None:
            self._capture_now()
        elif self._settings.capture_signal:
            capture_signal.send([pid for pid, _ in self._reaper.children()])

    def _capture_now(self) -> None:
        if self._recorder.tracing is not None:
            self._recorder.tracing.capture_now()

    def _view(self) -> dict[str, Any] | None:
        view = self._channel.status.read()
        if view is None:
            return None
        off = self._recorder.switched_off()
        return {**view, "main_pid": os.getpid(), "switched_off": off}
