"""Injects the plan's faults into the worker and its Collector, and records them."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from soak.collector import Trouble, TroubledReceiver
from soak.plan import Fault, Injection
from soak.worker import SoakWorker, age_s

_REPORTER_AGE_S = 10.5
"""A reporter that lived for less is started again only after a pause."""


@dataclass
class Injected:
    """The injected faults."""

    counts: Counter[str] = field(default_factory=Counter)
    killed: set[int] = field(default_factory=set)
    """Pids of children."""
    reporter_kills_ns: list[int] = field(default_factory=list)


class Injector:
    """One for the whole run."""

    def __init__(self, worker: SoakWorker, receiver: TroubledReceiver, seed: int = 1) -> None:
        self.done = Injected()
        self._worker = worker
        self._receiver = receiver
        self._random = random.Random(seed)
        self._stopped: psutil.Process | None = None

    def inject(self, due: Sequence[Injection]) -> list[Injection]:
        """Tries to inject each of these; returns those that have to wait."""
        return [injection for injection in due if not self._inject(injection)]

    def _inject(self, injection: Injection) -> bool:
        if injection.fault is Fault.KILL_CHILD:
            return self._kill_child()
        if injection.fault is Fault.KILL_REPORTER:
            return self._kill_reporter()
        if injection.fault is Fault.COLLECTOR:
            self._receiver.turn(injection.trouble)
            if injection.trouble is not Trouble.NONE:
                self.done.counts[f"Collector {injection.trouble.value}"] += 1
            return True
        return self._fill_rings() if injection.fault is Fault.RING_FULL else self._free_rings()

    def _kill_child(self) -> bool:
        children = [pid for pid in self._worker.children() if pid not in self.done.killed]
        if not children:
            return False
        pid = self._random.choice(children)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self.done.killed.add(pid)
        self.done.counts[Fault.KILL_CHILD.value] += 1
        return True

    def _kill_reporter(self) -> bool:
        reporter = self._worker.reporter()
        if reporter is None:
            return False
        if age_s(reporter.pid) < _REPORTER_AGE_S:
            return False
        try:
            self.done.reporter_kills_ns.append(time.time_ns())
            reporter.kill()
        except psutil.Error:
            return False
        self.done.counts[Fault.KILL_REPORTER.value] += 1
        return True

    def _fill_rings(self) -> bool:
        """Stops the reader."""
        reporter = self._worker.reporter()
        if reporter is None:
            return False
        reporter.suspend()
        self._stopped = reporter
        self.done.counts[Fault.RING_FULL.value] += 1
        return True

    def _free_rings(self) -> bool:
        if self._stopped is not None:
            self._stopped.resume()
            self._stopped = None
        return True

    def release(self) -> None:
        """Leaves no process stopped, whatever happened."""
        self._receiver.turn(Trouble.NONE)
        with suppress(psutil.Error, OSError):
            self._free_rings()
