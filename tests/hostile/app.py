"""The Celery app of the workers that run hostile tasks: with us where the environment says so."""

from __future__ import annotations

import json
import os

from celery import Celery

from tests.hostile.tasks import HOSTILE, tracing

app = Celery("hostile")
app.conf.update(
    broker_url=os.environ["TEST_BROKER"],
    result_backend=os.environ["TEST_BACKEND"],
    broker_transport_options={
        # Where there is no event loop, a worker that has enough tasks waits so long: a second.
        "polling_interval": 0.05,
        **json.loads(os.environ.get("TEST_TRANSPORT_OPTIONS", "{}")),
    },
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    worker_proc_alive_timeout=60.0,
    worker_enable_remote_control=False,
)


@app.task(name="hostile.nothing")
def nothing() -> None:
    """What runs after a hostile task, in the process that it left."""


@app.task(name="hostile.undo")
def undo(name: str) -> None:
    """Puts right what a hostile task did to its process."""
    wanted = HOSTILE[name].undo
    assert wanted is not None
    wanted()


for _each in HOSTILE.values():
    app.task(**{"name": _each.task_name, **_each.task})(_each.function)

if "HOSTILE_KEEPS_FUNCTIONS" in os.environ:
    tracing.keep_functions()

if "HOSTILE_MEASURED" in os.environ:
    from otel_celery_memory import CeleryMemoryInstrumentor

    CeleryMemoryInstrumentor().instrument()
