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
from collections.abc import Callable

VARIANTS = ("bare", "ours, tracing off", "opentelemetry-instrumentation-celery + SDK")
ROUNDS = 7
RUNS = 20_000


def main() -> None:
    """Prints the table."""
    added: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(ROUNDS):
        for variant in VARIANTS:
            added[variant].append(_in_a_process(variant))
    bare = statistics.median(added["bare"])
    print("Celery's tracer, empty task, CPU us a task (median of rounds)")
    gains = {}
    for variant in VARIANTS:
        median = statistics.median(added[variant])
        gains[variant] = median - bare
        print(f"  {variant:46} {median:7.2f}  adds {gains[variant]:6.2f}")
    ours, theirs = gains[VARIANTS[1]], gains[VARIANTS[2]]
    print(f"  ratio of what is added: {ours / theirs:.2f}")


def _in_a_process(variant: str) -> float:
    command = [sys.executable, "-m", "benchmarks.tracer", variant]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(variant: str) -> float:
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
    for _ in range(RUNS // 10):
        trace("0" * 36, (), {}, request)
    began = time.process_time()
    for _ in range(RUNS):
        trace("0" * 36, (), {}, request)
    cost_us = (time.process_time() - began) / RUNS * 1e6
    stop()
    return cost_us


def _instrument(variant: str) -> Callable[[], None]:
    if variant == VARIANTS[1]:
        return _ours()
    if variant == VARIANTS[2]:
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


def _ours() -> Callable[[], None]:
    """The worker's side as in a child of the pool, with a real reporter on the rings."""
    from otel_celery_memory.settings import Settings
    from otel_celery_memory.worker.lifecycle.supervisor import Supervisor
    from otel_celery_memory.worker.measuring.signals import TaskSignals
    from otel_celery_memory.worker.measuring.spans import TaskSpans
    from otel_celery_memory.worker.measuring.task_recorder import TaskRecorder
    from otel_celery_memory.worker.record_writer import RecordWriter

    os.environ.update(OTEL_METRICS_EXPORTER="none", OTEL_LOGS_EXPORTER="none")
    settings = Settings()
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
        print(measure(sys.argv[1]))
    else:
        main()
