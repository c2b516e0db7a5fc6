"""The tasks that are sent to the worker, and their expected outcomes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import redis
from celery import Celery

_KEYS_AT_ONCE = 1_000
_KINDS = ("double", "build", "double", "build", "fail", "double", "double", "build", "double")
LOST = "WorkerLostError"
"""Celery's exception for a task whose process was killed."""


@dataclass(frozen=True)
class Sent:
    """One task as it was sent."""

    task_id: str
    kind: str
    number: int

    @property
    def expected(self) -> tuple[str, Any]:
        """State and result, or name of the exception and its message."""
        if self.kind == "fail":
            return "FAILURE", ("ValueError", f"number {self.number}")
        return "SUCCESS", 2 * self.number if self.kind == "double" else self.number % 300


def tasks(count: int, first: int = 0) -> list[Sent]:
    """A number of tasks of all kinds."""
    numbers = range(first, first + count)
    return [Sent(str(uuid.uuid4()), _KINDS[n % len(_KINDS)], n) for n in numbers]


def send(client: Celery, batch: Sequence[Sent], queue: str) -> None:
    """Publish them over one connection."""
    with client.connection_for_write() as connection, client.amqp.Producer(connection) as producer:
        for each in batch:
            client.send_task(
                f"soak.{each.kind}",
                (each.number,),
                task_id=each.task_id,
                queue=queue,
                producer=producer,
            )


@dataclass
class Outcomes:
    """The outcomes in the result backend, by task id, read until none is missing."""

    store: redis.Redis
    found: dict[str, tuple[str, Any]] = field(default_factory=dict)

    def missing(self, sent: Sequence[Sent]) -> int:
        """Reads the outcomes still missing; returns how many remain."""
        wanted = [each.task_id for each in sent if each.task_id not in self.found]
        for at in range(0, len(wanted), _KEYS_AT_ONCE):
            ids = wanted[at : at + _KEYS_AT_ONCE]
            values: Any = self.store.mget([f"celery-task-meta-{task_id}" for task_id in ids])
            for task_id, value in zip(ids, values, strict=True):
                if value is not None:
                    self.found[task_id] = _outcome(json.loads(value))
        return sum(each.task_id not in self.found for each in sent)


def _outcome(meta: dict[str, Any]) -> tuple[str, Any]:
    result = meta["result"]
    if meta["status"] == "FAILURE":
        return "FAILURE", (result["exc_type"], " ".join(map(str, result["exc_message"])))
    return meta["status"], result
