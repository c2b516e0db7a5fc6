"""What the main process looks at now and then: the reporter, the pool's children, the roll call."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from otel_celery_memory.circuit_breaker import Containment
from otel_celery_memory.ipc.records import MAIN_SLOT, PartFailed
from otel_celery_memory.worker.lifecycle.child_exits import Reaper
from otel_celery_memory.worker.lifecycle.resync import call_roll, tell_again
from otel_celery_memory.worker.lifecycle.supervisor import CHECK_INTERVAL_S, Supervisor
from otel_celery_memory.worker.pipe import Channel

ROLL_CALL_CHECKS = 3
"""Every so many checks the reporter is told who is there."""


class Checks:
    """Runs on the worker's own timer."""

    def __init__(
        self, worker: Any, channel: Channel, supervisor: Supervisor, reaper: Reaper
    ) -> None:
        self._worker = worker
        self._channel = channel
        self._supervisor = supervisor
        self._reaper = reaper
        self._main_pid = os.getpid()
        self._timer: Any = None
        self._done = 0
        self._contained = Containment(told=self._switched_off)

    def begin(self) -> None:
        """From now on, every `CHECK_INTERVAL_S`."""
        if self._timer is None:
            self._timer = self._worker.timer.call_repeatedly(CHECK_INTERVAL_S, self._check)

    def end(self) -> None:
        """No more; the timer may have ended before. A reporter that died is started once more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            with contextlib.suppress(Exception):
                timer.cancel()
        # What is in the pipe, and who has ended lately, would be told by nobody.
        if self._supervisor.revive():
            self._tell_again()

    def follow_pool(self) -> None:
        """Hear of the pool's children as they are reaped; the pool may be a new one."""
        self._reaper.follow(self._worker.pool)

    def _check(self) -> None:
        if self._timer is None:
            return  # where the timer is a thread, this one may come after the end
        self._contained.run("checks", self._look)

    def _switched_off(self, part: str) -> None:
        self._channel.send(PartFailed(self._main_pid, time.time_ns(), MAIN_SLOT, part))

    def _look(self) -> None:
        self.follow_pool()
        self._reaper.look()
        restarted = self._supervisor.check()
        self._reaper.ends.tell_unsent()
        self._done += 1
        if restarted:
            self._tell_again()
        elif self._done % ROLL_CALL_CHECKS == 0:
            call_roll(self._channel, self._main_pid, self._reaper.children())

    def _tell_again(self) -> None:
        channel, reaper = self._channel, self._reaper
        told = channel.page.told.pids()
        tell_again(channel, self._main_pid, reaper.children(), reaper.ends, told)
