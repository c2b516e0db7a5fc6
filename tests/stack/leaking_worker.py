"""A worker of which only the verdicts are made up: its emitter and its exports are real.

``python -m tests.stack.leaking_worker NODE`` suspects a leak, then says that it leaks, and a second
one that is not counted in bytes. At SIGTERM the leaks end, as after a fix, and it exports that.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from otel_celery_memory.ipc.control_page import NO_DROPS
from otel_celery_memory.leaks.verdict import (
    Forecast,
    Holder,
    Interval,
    Kind,
    Place,
    State,
    Verdict,
    Where,
)
from otel_celery_memory.probes.limits import Limits
from otel_celery_memory.reporter.capture_assembly import CaptureAssembly
from otel_celery_memory.reporter.emitter import Emitter
from otel_celery_memory.reporter.gauges import ReporterContext
from otel_celery_memory.reporter.sites import SiteTotals
from otel_celery_memory.reporter.state.totals import TaskTotals
from otel_celery_memory.reporter.state.worker_state import WorkerState
from otel_celery_memory.reporter.symbolizer import Symbolizer
from otel_celery_memory.telemetry.pipeline import Pipeline, open_pipeline
from tests.processes import Server, running

SERVICE, NODE = "leaks", "leaking@test"
EXPORT_INTERVAL_S = 2.0
TASK, LINE, HOLDER = "shop.tasks.import_feed", "shop/feeds.py:41", "shop.feeds._seen"
_NOW_S = time.time()
LEAK = Verdict(
    state=State.LEAKING,
    kind=Kind.PYTHON,
    where=Where.TASK,
    task=TASK,
    rate=Interval(10_445, 10_035, 10_854),
    rate_per_s=20_000,
    runs=4_100,
    processes=6,
    since_s=_NOW_S - 3_600,
    now_s=_NOW_S,
    grown=42_000_000,
    explained=0.97,
    place=Place(LINE, "/app/shop/feeds.py", 41, "remember", "threading.py:265", 0.97),
    holder=Holder(HOLDER, (("dict", 3.0), ("str", 2.0))),
    condition="in runs that fail",
    forecast=Forecast("0", "cgroup", 2 << 30, Interval(1_800, 1_500, 2_100)),
    max_tasks_per_child=4_000,
    max_memory_per_child_bytes=500 << 20,
    reasons=("it does not slow down",),
)
OTHER_LEAK = replace(
    LEAK,
    kind=Kind.FILE_DESCRIPTORS,
    rate=Interval(0.5, 0.4, 0.6),
    place=None,
    holder=None,
    forecast=None,
)


@contextmanager
def running_leaking_worker(directory: Path, environ: Mapping[str, str]) -> Iterator[Server]:
    """It leaks for as long as the context lasts; ``environ`` says where it exports to."""
    named = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OTEL_SERVICE_NAME": SERVICE,
        **environ,
    }
    command = [sys.executable, "-m", "tests.stack.leaking_worker", NODE]
    with running("leaking_worker", command, directory, named) as server:
        yield server


def emitter_of(pipeline: Pipeline, node: str) -> Emitter:
    """An emitter of a worker that has nothing but verdicts."""
    describe = Symbolizer().describe
    return Emitter(
        pipeline.meter,
        pipeline.logger,
        pipeline.histogram,
        pipeline.site_gauges,
        pipeline.leak_gauges,
        WorkerState(),
        TaskTotals(),
        SiteTotals(describe, 10),
        CaptureAssembly(node, 1, describe, None),
        ReporterContext(
            processes=dict,
            limits=Limits,
            limits_used=list,
            max_memory_per_child_bytes=None,
            frames_dropped=lambda: NO_DROPS,
            reporter_restarts=0,
            tracing_share=lambda: None,
        ),
    )


def main(node: str) -> None:
    """Emits until SIGTERM comes, then that the leaks have ended."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # before threads are started
    pipeline = open_pipeline(node, EXPORT_INTERVAL_S)
    emitter = emitter_of(pipeline, node)

    def decide(*verdicts: Verdict) -> None:
        emitter.leaks = verdicts
        for verdict in verdicts:
            emitter.emit_leak(verdict, time.time_ns())

    decide(replace(LEAK, state=State.SUSPECTED))
    time.sleep(2 * EXPORT_INTERVAL_S)
    decide(LEAK, OTHER_LEAK)
    signal.sigwait({signal.SIGTERM})
    decide(*(replace(each, state=State.ENDED) for each in (LEAK, OTHER_LEAK)))
    pipeline.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
