"""The Celery app under the faults: tasks whose outcomes are known, and which mark start and end."""

from __future__ import annotations

import json
import os
from typing import Any

from celery import Celery, Task

from otel_celery_memory import CeleryMemoryInstrumentor
from otel_celery_memory.ipc import ring
from otel_celery_memory.worker.lifecycle.supervisor import Supervisor
from soak.marks import END, START, write_mark

app = Celery("soak", broker=os.environ["SOAK_BROKER"], backend=os.environ["SOAK_BACKEND"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    # Celery's defaults: a task that is killed with its process is lost.
    task_acks_late=False,
    task_reject_on_worker_lost=False,
)
_fd = os.open(os.environ["SOAK_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@app.task(bind=True, name="soak.double")
def double(self: Task, number: int) -> int:
    """The plain one."""
    write_mark(_fd, START, self.request.id)
    result = 2 * number
    write_mark(_fd, END, self.request.id)
    return result


@app.task(bind=True, name="soak.build")
def build(self: Task, number: int) -> int:
    """Heavy on allocations."""
    write_mark(_fd, START, self.request.id)
    rows: list[dict[str, Any]] = [{"id": n, "name": f"item {n}"} for n in range(number % 300)]
    result = len(json.loads(json.dumps(rows)))
    write_mark(_fd, END, self.request.id)
    return result


@app.task(bind=True, name="soak.fail")
def fail(self: Task, number: int) -> None:
    """Raises."""
    write_mark(_fd, START, self.request.id)
    write_mark(_fd, END, self.request.id)
    raise ValueError(f"number {number}")


ring.RINGS_BYTES = ring.RING_BYTES_MIN  # rings of the least size, so that they fill
Supervisor.hang_s = 300.0  # one that is stopped, so that rings fill, is not to be replaced
CeleryMemoryInstrumentor().instrument()
