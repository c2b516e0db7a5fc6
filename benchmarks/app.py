"""The Celery app of the workers in the benchmarks; the environment says which contender it is.

Each task notes when its function began. From one to the next in a child is all that a run takes
there, with what was done before and after it: the latency inside the worker.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable
from functools import wraps

from celery import Celery

from benchmarks.contenders import CONTENDERS
from benchmarks.workloads import FUNCTIONS, among_many

app = Celery("bench", broker=os.environ["BENCH_BROKER"])
# Workers need no messages to one another, and no client waits for a result.
app.conf.update(
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)

_began_ns = array("q")


def _noting(function: Callable[[], None]) -> Callable[[], None]:
    @wraps(function)
    def task() -> None:
        _began_ns.append(time.perf_counter_ns())
        function()

    return task


for _name, _function in FUNCTIONS.items():
    app.task(name=_name)(_noting(_function))
for _number in range(int(os.environ.get("BENCH_NAMES", "0"))):
    app.task(name=f"bench.named_{_number:04}")(_noting(among_many))


@app.task(name="bench.done")
def done(key: str) -> None:
    """The last of a batch: one child runs its tasks in order. Tells when each of them began."""
    _began_ns.append(time.perf_counter_ns())
    with app.connection_for_write() as connection:
        connection.default_channel.client.rpush(key, _began_ns.tobytes())
    del _began_ns[:]


CONTENDERS[os.environ["BENCH_CONTENDER"]].install()
