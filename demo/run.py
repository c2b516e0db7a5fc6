"""One run of the demo: starts all parts, publishes the load, ends all parts, and sums up."""

from __future__ import annotations

import contextlib
import math
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
from demo.local_view import LocalView
from demo.numbers import Numbers, numbers_of
from demo.summary import endpoint_summary, names_the_leak, summary
from demo.table import View, open_view
from demo.worker import Worker, WorkerError

_START_TIMEOUT_S = 40.0
_STEP_S = 0.1
_LOOK_S = 0.5
_LONGER = 4
"""On a busy machine few runs fit into the time, and fewer are sampled: then it lasts longer, up
to so many times."""
_OPENING = """\
A Celery worker with two processes runs three tasks for {seconds:.0f} seconds: one leaks, one takes
much memory and gives it back, one is healthy. What memory does is sent to {receiver}.
At the end: which task leaks, and at which line."""


@dataclass(frozen=True)
class Options:
    """What the user asked for; an empty endpoint is a view that the demo starts."""

    seconds: float
    endpoint: str
    stay: bool = False
    """Whether the view's page stays open after the summary, until Ctrl-C."""


def run(options: Options, interruption: Interruption) -> None:
    """Prints the summary. Raises `WorkerError`, `ViewError` or `Interrupted`.

    Leaves nothing behind in any case.
    """
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(
                TemporaryDirectory(prefix="otel-celery-memory-demo-", ignore_cleanup_errors=True)
            )
        )
        local = None if options.endpoint else stack.enter_context(LocalView(directory))
        receiver = f"the view, {local.page}" if local else options.endpoint
        print(_OPENING.format(seconds=options.seconds, receiver=receiver), flush=True)
        environment = demo_environment(
            os.environ,
            directory,
            local.endpoint if local else options.endpoint,
            embedded=local is not None,
        )
        os.environ.clear()
        os.environ.update(environment)
        with Worker(environment, directory) as worker:
            load = Load(options.seconds * _LONGER)
            try:
                with open_view() as view:
                    _start(load, worker, view, interruption)
                    _keep_going(load, worker, view, interruption, options.seconds, local)
                    view.show("the worker shuts down", _now(local))
                    _end(load, worker)
                interruption.check()
            except Interrupted as interrupted:
                print(f"{interrupted}: the worker is being ended.", file=sys.stderr)
                _end(load, worker)
                raise
            if local is None:
                print(_sent(worker, options.endpoint, load.published), flush=True)
                return
            print(_received(worker, _now(local)), flush=True)
        if options.stay:
            print(f"The page stays open: {local.page} (Ctrl-C ends it)", flush=True)
            with contextlib.suppress(Interrupted):
                interruption.sleep(math.inf)


def _now(local: LocalView | None) -> Numbers:
    return numbers_of(local.snapshot()) if local else Numbers()


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
    local: LocalView | None,
) -> None:
    numbers, looked_s = Numbers(), 0.0
    began_s = time.monotonic()
    while (elapsed_s := time.monotonic() - began_s) < seconds * _LONGER:
        if elapsed_s >= seconds and (local is None or names_the_leak(numbers)):
            return
        load.publish_until(elapsed_s)
        worker.check()
        if elapsed_s - looked_s >= _LOOK_S:
            numbers, looked_s = _now(local), elapsed_s
        longer = "tasks run until the leak is sampled: the machine is busy"
        view.show("tasks run" if elapsed_s < seconds else longer, numbers)
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
