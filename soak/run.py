"""One run: phases of load and faults, each followed by the balance of its tasks."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import redis
from celery import Celery

from soak.account import (
    Balance,
    Deaths,
    begun,
    deaths,
    harmed,
    lost_in_flight,
    reported_twice_max,
)
from soak.collector import TroubledReceiver
from soak.injector import Injected, Injector
from soak.load import Outcomes, Sent, send, tasks
from soak.marks import Marks
from soak.plan import Phase, Scale
from soak.worker import EXPORT_INTERVAL_S, QUEUE, SoakWorker, soak_worker
from tests.redis_server import running_redis
from tests.worker.harness import losses, measured

_POLL_S = 0.02
_LOOK_S = 0.5
_BATCH = 100
_SETTLE_S = 9.0
"""The exit of a killed child is classified after at most six seconds, then exported."""
_STUCK_S = 90.0
Say = Callable[[str], None]


@dataclass
class Result:
    """The numbers of the table."""

    tasks: int
    injected: Injected
    deaths: Deaths
    balances: list[Balance] = field(default_factory=list)
    harmed: list[str] = field(default_factory=list)
    duration_s: float = 0.0
    restarts: int = 0

    @property
    def all_right(self) -> bool:
        """Whether nothing is missing, wrong or harmed."""
        held = all(balance.holds for balance in self.balances)
        return held and self.deaths.all_right and not self.harmed


class Soak:
    """Runs the phases of load and faults."""

    def __init__(
        self, worker: SoakWorker, receiver: TroubledReceiver, broker: str, marks: Marks, say: Say
    ) -> None:
        self._worker = worker
        self._receiver = receiver
        self._client = Celery("client", broker=broker, set_as_current=False)
        self._outcomes = Outcomes(redis.Redis.from_url(f"{broker.removesuffix('/0')}/1"))
        self._marks = marks
        self._injector = Injector(worker, receiver)
        self._say = say
        self._sent: list[Sent] = []
        self._totals = (0, 0, 0, 0, 0, 0)
        self.balances: list[Balance] = []

    def phase(self, phase: Phase) -> None:
        """Runs load and faults until all tasks of the phase are done, then adds its balance."""
        self._say(f"{phase.name}: {phase.tasks:,} tasks, {len(phase.injections)} injections")
        batch = tasks(phase.tasks, len(self._sent))
        self._sent += batch
        sender = threading.Thread(target=self._send, args=(batch, phase.rate_per_s), daemon=True)
        sender.start()
        try:
            self._inject_until_done(phase, batch)
        finally:
            self._injector.release()
        sender.join()
        time.sleep(_SETTLE_S + EXPORT_INTERVAL_S)
        self._balance(phase.name)

    def _send(self, batch: list[Sent], rate_per_s: float) -> None:
        for at in range(0, len(batch), _BATCH):
            send(self._client, batch[at : at + _BATCH], QUEUE)
            if rate_per_s:
                time.sleep(_BATCH / rate_per_s)

    def _inject_until_done(self, phase: Phase, batch: list[Sent]) -> None:
        before = self._marks.starts
        planned, waiting = list(phase.injections), []
        looked_s, last_starts, moved_s = 0.0, 0, time.monotonic()
        while True:
            self._marks.read()
            starts = self._marks.starts - before
            if starts != last_starts:
                last_starts, moved_s = starts, time.monotonic()
            while planned and planned[0].at <= starts:
                waiting.append(planned.pop(0))
            waiting = self._injector.inject(waiting)
            now_s = time.monotonic()
            if now_s - looked_s > _LOOK_S and now_s - moved_s > _LOOK_S:
                looked_s = now_s
                if not self._outcomes.missing(batch):
                    return
            if now_s - moved_s > _STUCK_S:
                return  # what is missing is counted as harmed
            time.sleep(_POLL_S)

    def _balance(self, name: str) -> None:
        self._marks.read()
        events = losses(self._receiver.received)
        dropped = self._worker.dropped()
        now = (
            len(begun(self._marks, events)),
            sum(measured(self._receiver.received).values()),
            len(lost_in_flight(events)),
            dropped.task_ends,
            dropped.others + dropped.damaged,
            reported_twice_max(
                self._injector.done.reporter_kills_ns,
                list(self._receiver.received.points),
                self._marks.ended,
            ),
        )
        counts = [after - before for after, before in zip(now, self._totals, strict=True)]
        self.balances.append(Balance(name, *counts))
        self._say(f"{self.balances[-1]}")
        self._totals = now

    def result(self, began_s: float) -> Result:
        """Runs all phases."""
        done = self._injector.done
        events = losses(self._receiver.received)
        restarts = self._receiver.received.latest("celery.memory.reporter.restarts")
        return Result(
            len(self._sent),
            done,
            deaths(done.killed, events, self._marks, done.reporter_kills_ns),
            self.balances,
            harmed(self._sent, self._outcomes.found, self._marks, done.killed),
            time.monotonic() - began_s,
            int(max((point.value for point in restarts), default=0)),
        )


def run(scale: Scale, say: Say) -> Result:
    """Redis, Collector and worker of its own, and all phases on them."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as name, TroubledReceiver() as receiver:
        directory = Path(name)
        with (
            running_redis(directory) as broker,
            soak_worker(broker, receiver.endpoint, directory) as worker,
        ):
            soak = Soak(worker, receiver, broker, Marks(directory / "marks"), say)
            for phase in scale.phases():
                soak.phase(phase)
            result = soak.result(began_s)
            worker.stop()
        return result
