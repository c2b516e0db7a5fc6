"""What an instrumentation adds to Celery's own tracer of an empty task, in CPU microseconds.

Each variant runs in a process of its own, in turn, so that a machine that slows down slows all of
them. The table has the median of the rounds, and the ratio of what each adds.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.progress import Progress

THEIRS = "opentelemetry-instrumentation-celery + SDK"
OURS = {"this package, default": "budget", "this package, tracing off": "off"}
VARIANTS = ("bare", *OURS, THEIRS)
ROUNDS = 7
RUNS = 20_000


def measured(progress: Progress, rounds: int = ROUNDS, runs: int = RUNS) -> dict[str, Any]:
    """CPU microseconds a task of each variant, and the ratios of what is added."""
    found: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for number in range(rounds):
        progress.step(f"Celery's tracer, round {number + 1} of {rounds}")
        for variant in VARIANTS:
            found[variant].append(_in_a_process(variant, runs))
    medians = {variant: statistics.median(each) for variant, each in found.items()}
    added = {variant: median - medians["bare"] for variant, median in medians.items()}
    return {
        "cpu_us": medians,
        "added_us": added,
        "of_theirs": {variant: added[variant] / added[THEIRS] for variant in OURS},
        "rounds": rounds,
        "runs": runs,
    }


def table(told: Mapping[str, Any]) -> str:
    """For people."""
    lines = [f"Celery's tracer, empty task, CPU us a task (median of {told['rounds']} rounds)"]
    for variant, median in told["cpu_us"].items():
        lines.append(f"  {variant:46} {median:7.2f}  adds {told['added_us'][variant]:6.2f}")
    for variant, ratio in told["of_theirs"].items():
        lines.append(f"  {variant}, of what OpenTelemetry's adds: {ratio:.2f}")
    return "\n".join(lines)


def _in_a_process(variant: str, runs: int) -> float:
    command = [sys.executable, "-m", "benchmarks.tracer", variant, str(runs)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(variant: str, runs: int) -> float:
    """CPU microseconds of this process per task."""
    from celery import Celery
    from celery.app.trace import build_tracer

    app = Celery("bench", broker="memory://", backend="disabled://", set_as_current=False)

    @app.task(name="bench.empty", ignore_result=True)
    def empty() -> None:
        return None

    stop = _instrument(variant)
    task = app.tasks[empty.name]
    trace = build_tracer(task.name, task, app=app)
    request = {"id": "0" * 36, "delivery_info": {}, "is_eager": False, "hostname": "w@h"}
    for _ in range(runs // 10):
        trace("0" * 36, (), {}, request)
    began = time.process_time()
    for _ in range(runs):
        trace("0" * 36, (), {}, request)
    cost_us = (time.process_time() - began) / runs * 1e6
    stop()
    return cost_us


def _instrument(variant: str) -> Callable[[], None]:
    if variant in OURS:
        return _ours(OURS[variant])
    if variant == THEIRS:
        from opentelemetry.instrumentation.celery import CeleryInstrumentor
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

        class Nowhere(SpanExporter):
            def export(self, spans: object) -> None:  # type: ignore[override]
                return None

        tracers = TracerProvider()
        tracers.add_span_processor(BatchSpanProcessor(Nowhere()))
        meters = MeterProvider([InMemoryMetricReader()])
        CeleryInstrumentor().instrument(  # type: ignore[no-untyped-call]
            tracer_provider=tracers, meter_provider=meters
        )
    return lambda: None


def _ours(tracing: str) -> Callable[[], None]:
    """The worker's side as in a child of the pool, with a real reporter on the rings."""
    from otel_celery_memory.settings import Settings
    from otel_celery_memory.worker.lifecycle.supervisor import Supervisor
    from otel_celery_memory.worker.measuring.signals import TaskSignals
    from otel_celery_memory.worker.measuring.spans import TaskSpans
    from otel_celery_memory.worker.measuring.task_recorder import TaskRecorder
    from otel_celery_memory.worker.record_writer import RecordWriter

    os.environ.update(OTEL_METRICS_EXPORTER="none", OTEL_LOGS_EXPORTER="none")
    settings = Settings(tracing=tracing)
    writer = RecordWriter()
    supervisor = Supervisor(writer, settings, "bench@h", 0)
    supervisor.start()
    recorder = TaskRecorder(writer, settings, TaskSpans(), writer.page)
    recorder.begin(0)
    TaskSignals(recorder).connect()

    def stop() -> None:
        dropped = writer.page.drop_counters.counts().total
        writer.close()
        supervisor.stop()
        if dropped:
            print(f"{dropped} frames dropped", file=sys.stderr)

    return stop


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(measure(sys.argv[1], int(sys.argv[2])))
    else:
        print(table(measured(Progress())))
