"""The Celery app of the workers in `benchmarks.worker`; the environment says which variant it is.

``guides`` is what articles on leaking Celery workers recommend: ``tracemalloc`` with ten frames
from the start of each child, and a snapshot grouped by line every thousand tasks. The main process
is not traced and nothing is logged or compared, which favours the recipe.
``empty receivers`` is what Celery alone takes to call receivers before and after a task.
"""

from __future__ import annotations

import json
import os
import tracemalloc
from typing import Any

from celery import Celery, signals

VARIANT = os.environ["BENCH_VARIANT"]
DICTS = 300
SNAPSHOT_EVERY = 1_000
GUIDE_FRAMES = 10

app = Celery("bench", broker=os.environ["BENCH_BROKER"])
# Workers need no messages to one another, and no client waits for a result.
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)

_runs = 0


@app.task(name="bench.build")
def build() -> None:
    """Heavy on allocations: builds and dumps small dictionaries."""
    json.dumps([{"id": n, "name": f"item {n}", "price": n * 1.5} for n in range(DICTS)])


@app.task(name="bench.done")
def done(key: str) -> None:
    """The last of a batch: one child runs its tasks in order."""
    with app.connection_for_write() as connection:
        connection.default_channel.client.rpush(key, 1)


def _start_tracing(**_: Any) -> None:
    tracemalloc.start(GUIDE_FRAMES)


def _take_snapshot(**_: Any) -> None:
    global _runs
    _runs += 1
    if _runs % SNAPSHOT_EVERY == 0:
        tracemalloc.take_snapshot().statistics("lineno")


def _do_nothing(**_: Any) -> None:
    pass


if VARIANT == "empty receivers":
    signals.task_prerun.connect(_do_nothing, weak=False)
    signals.task_postrun.connect(_do_nothing, weak=False)
elif VARIANT == "guides":
    signals.worker_process_init.connect(_start_tracing, weak=False)
    signals.task_postrun.connect(_take_snapshot, weak=False)
elif not VARIANT.startswith("bare"):
    from otel_celery_memory import CeleryMemoryInstrumentor

    CeleryMemoryInstrumentor().instrument()
