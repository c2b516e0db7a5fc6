"""One run of the demo: starts all parts, publishes the load, ends all parts, and sums up."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from demo.environment import demo_environment
from demo.interruption import Interrupted, Interruption
from demo.load import Load
from demo.numbers import Numbers, numbers_of
from demo.receiver import Received, Receiver
from demo.summary import endpoint_summary, summary
from demo.table import View, open_view
from demo.worker import Worker, WorkerError

_START_TIMEOUT_S = 40.0
_STEP_S = 0.1


@dataclass(frozen=True)
class Options:
    """What the user asked for; an empty endpoint is a receiver inside the demo."""

    seconds: float
    endpoint: str


def run(options: Options, interruption: Interruption) -> str:
    """The summary. Raises `WorkerError` or `Interrupted`; leaves nothing behind in any case."""
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(
                TemporaryDirectory(prefix="otel-celery-memory-demo-", ignore_cleanup_errors=True)
            )
        )
        receiver = None if options.endpoint else stack.enter_context(Receiver())
        received = receiver.received if receiver else Received()
        environment = demo_environment(
            os.environ,
            directory,
            receiver.endpoint if receiver else options.endpoint,
            embedded=receiver is not None,
        )
        os.environ.clear()
        os.environ.update(environment)
        with Worker(environment, directory) as worker:
            load = Load(options.seconds)
            try:
                with open_view() as view:
                    _start(load, worker, view, interruption)
                    _keep_going(load, worker, view, interruption, options.seconds, received)
                    view.show("the worker shuts down", numbers_of(received))
                    _end(load, worker)
                interruption.check()
            except Interrupted as interrupted:
                print(f"{interrupted}: the worker is being ended.", file=sys.stderr)
                _end(load, worker)
                raise
            if receiver is None:
                return _sent(worker, options.endpoint, load.published)
            return _received(worker, numbers_of(received))


def _start(load: Load, worker: Worker, view: View, interruption: Interruption) -> None:
    """Publishes the first tasks, and waits until the worker receives one."""
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    load.publish_until(_STEP_S)
    while load.waiting == load.published:
        view.show("the worker starts", Numbers())
        worker.check()
        if time.monotonic() > deadline_s:
            raise WorkerError(f"the worker takes no task; the end of its log:\n{worker.tail()}")
        interruption.sleep(_STEP_S)


def _keep_going(
    load: Load,
    worker: Worker,
    view: View,
    interruption: Interruption,
    seconds: float,
    received: Received,
) -> None:
    numbers = Numbers()
    began_s = time.monotonic()
    while (elapsed_s := time.monotonic() - began_s) < seconds:
        load.publish_until(elapsed_s)
        worker.check()
        if numbers.requests != received.requests:
            numbers = numbers_of(received)
        view.show("tasks run", numbers)
        interruption.sleep(_STEP_S)


def _end(load: Load, worker: Worker) -> None:
    worker.ask_to_end()
    load.wake()
    worker.stop()


def _received(worker: Worker, numbers: Numbers) -> str:
    if not numbers.runs:
        raise WorkerError(f"no telemetry arrived; the end of the worker's log:\n{worker.tail()}")
    return summary(numbers)


def _sent(worker: Worker, endpoint: str, published: int) -> str:
    complaints = worker.complaints()
    if complaints:
        raise WorkerError("\n".join(("not all telemetry was delivered:", *complaints)))
    return endpoint_summary(endpoint, published)
