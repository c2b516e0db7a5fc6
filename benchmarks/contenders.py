"""What is measured beside a worker without instrumentation, each as its documentation says.

A contender is installed in the application of a real worker, before the pool is made. What it has
collected is read where it sends or writes it (`benchmarks.outputs`): one of which nothing arrived
was not measured, whatever it cost. A worker without instrumentation imports this module, too: it
imports what a contender needs only where that is installed.
"""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from celery import signals

SNAPSHOT_EVERY = 100
"""Tasks between the snapshots of the guides' recipe."""
SHOWN = 10
"""Lines that the guides' recipe logs of a difference."""
DIRECTORY = "BENCH_DIRECTORY"
ENDPOINT = "BENCH_ENDPOINT"
_MEMALLOC_OFF = {"DD_PROFILING_STACK_ENABLED": "false", "DD_PROFILING_LOCK_ENABLED": "false"}


@dataclass(frozen=True)
class Contender:
    """One way to watch the memory of a worker, or not to.

    ``needs`` are distributions that must be installed, ``must`` what must have been collected in a
    run. ``share`` is how much of a batch it is given, where it takes so much longer. Or it is given
    ``tasks`` a batch and one to warm up, and takes part in the first ``rounds`` alone, in the short
    form on the workloads ``in_short`` alone.
    """

    name: str
    label: str
    configured: str
    install: Callable[[], None]
    needs: tuple[str, ...] = ()
    must: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    share: float = 1.0
    tasks: int | None = None
    rounds: int | None = None
    in_short: tuple[str, ...] = ()

    def takes_part(self, workload: str, number: int, short: bool) -> bool:
        """Whether it is measured in this round; those before 0 are to warm up."""
        if short and self.in_short and workload not in self.in_short:
            return False
        return self.rounds is None or number < self.rounds

    def missing(self) -> str:
        """Why it cannot be run; empty if it can."""
        return ", ".join(filter(None, map(_why_missing, self.needs)))

    def versions(self) -> dict[str, str]:
        """Of what it is made of."""
        return {name: version(name) for name in self.needs}

    def lacks(self, collected: Mapping[str, int]) -> str:
        """What it claims to collect and did not, in this run; empty if all is there."""
        return ", ".join(what for what in self.must if not collected.get(what))


def _why_missing(name: str) -> str:
    try:
        version(name)
    except PackageNotFoundError:
        why = Path(os.environ.get("BENCH_WHY", ".venv-bench/why")) / name
        lines = why.read_text(errors="replace").splitlines() if why.exists() else []
        told = next((line for line in lines if line.startswith("ERROR")), "")
        return f"{name} is not installed{f' ({told})' if told else ''}"
    return ""


def note(**what: Any) -> None:
    """Writes down something in a process of the worker."""
    path = Path(os.environ[DIRECTORY]) / f"notes.{os.getpid()}.jsonl"
    with path.open("a") as file:
        file.write(json.dumps({"at": time.time(), "pid": os.getpid(), **what}) + "\n")


def at_end(function: Callable[[], None]) -> None:
    """Has a child call this when it shuts down, after all that is measured."""
    signals.worker_process_shutdown.connect(lambda **_: function(), weak=False)


def in_child(function: Callable[[], None]) -> None:
    """Has each child call this when it begins."""
    signals.worker_process_init.connect(lambda **_: function(), weak=False)


def _nothing() -> None:
    pass


# Ours.


def _ours() -> None:
    from otel_celery_memory import CeleryMemoryInstrumentor

    CeleryMemoryInstrumentor().instrument()


# The guides' recipe.


def _guides() -> None:
    runs = 0
    before: tracemalloc.Snapshot | None = None

    def after_task(**_: Any) -> None:
        nonlocal runs, before
        if before is None:
            before = tracemalloc.take_snapshot()
            return
        runs += 1
        if runs % SNAPSHOT_EVERY:
            return
        snapshot = tracemalloc.take_snapshot()
        differences = snapshot.compare_to(before, "lineno")[:SHOWN]
        note(
            snapshot=runs,
            traced=tracemalloc.get_traced_memory()[0],
            lines=[
                [each.traceback[-1].filename, each.traceback[-1].lineno, each.size_diff]
                for each in differences
            ],
        )

    signals.task_postrun.connect(after_task, weak=False)


# OpenTelemetry's instrumentations.


def _opentelemetry(system_metrics: bool) -> None:
    """As the docstring of the Celery instrumentation has it: all of it in the child."""

    def begin() -> None:
        from opentelemetry import metrics, trace
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.celery import CeleryInstrumentor
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        tracers = TracerProvider()
        tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(tracers)
        meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
        metrics.set_meter_provider(meters)
        CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]
        if system_metrics:
            from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor

            SystemMetricsInstrumentor().instrument()

        def end() -> None:
            tracers.shutdown()
            meters.shutdown()

        at_end(end)

    in_child(begin)


# Profilers of memory.


def _ddtrace() -> None:
    import ddtrace.profiling.auto

    assert ddtrace.profiling.auto

    def end() -> None:
        from ddtrace.profiling import bootstrap

        bootstrap.profiler.stop()

    at_end(end)


def _pyroscope() -> None:
    def begin() -> None:
        import pyroscope

        pyroscope.configure(
            application_name="bench",
            server_address=os.environ[ENDPOINT],
            mem_enabled=True,
            cpu_enabled=False,
            report_pid=True,
        )
        at_end(lambda: note(shutdown=pyroscope.shutdown()))

    in_child(begin)


def _memray() -> None:
    def begin() -> None:
        import memray

        path = Path(os.environ[DIRECTORY]) / f"memray.{os.getpid()}.bin"
        destination = memray.FileDestination(path, overwrite=True)
        tracker = memray.Tracker(
            destination=destination, file_format=memray.FileFormat.AGGREGATED_ALLOCATIONS
        )
        tracker.__enter__()
        at_end(lambda: tracker.__exit__(None, None, None))

    in_child(begin)


def _psutil() -> None:
    """RSS before and after each task, added up by task name: what most home-made receivers do."""
    import psutil

    process: Any = None
    grown: dict[str, list[int]] = {}
    began: list[int] = []

    def begin() -> None:
        nonlocal process
        process = psutil.Process()

    def before(**_: Any) -> None:
        began.append(process.memory_info().rss)

    def after(task: Any = None, **_: Any) -> None:
        of_task = grown.setdefault(task.name, [0, 0])
        of_task[0] += 1
        of_task[1] += process.memory_info().rss - began.pop()
        if sum(runs for runs, _ in grown.values()) % SNAPSHOT_EVERY == 0:
            note(grown=grown)

    in_child(begin)
    signals.task_prerun.connect(before, weak=False)
    signals.task_postrun.connect(after, weak=False)
    at_end(lambda: note(grown=grown))


_OURS_MUST = ("tasks measured", "points")
_OTEL = ("opentelemetry-instrumentation-celery", "opentelemetry-sdk")
CONTENDERS: Mapping[str, Contender] = {
    each.name: each
    for each in (
        Contender("bare", "bare", "no instrumentation", _nothing),
        Contender(
            *("bare_again", "bare again", "the same once more: what differs is noise"),
            _nothing,
        ),
        Contender(
            *("default", "this package, default", "`instrument()`", _ours),
            must=_OURS_MUST,
        ),
        Contender(
            *("off", "this package, tracing off", '`tracing="off"`', _ours),
            environ={"OTEL_CELERY_MEMORY_TRACING": "off"},
            must=_OURS_MUST,
        ),
        Contender(
            *("always", "this package, always", '`tracing="always"`', _ours),
            environ={"OTEL_CELERY_MEMORY_TRACING": "always"},
            must=(*_OURS_MUST, "allocation sites"),
            share=0.25,
        ),
        Contender(
            *("in_process", "this package, in process", '`delivery="inprocess"`', _ours),
            environ={"OTEL_CELERY_MEMORY_DELIVERY": "inprocess"},
            must=_OURS_MUST,
        ),
        *(
            Contender(
                f"guides_{frames}",
                f"guides' recipe, {frames} frame{'s' if frames > 1 else ''}",
                f"`PYTHONTRACEMALLOC={frames}`, a snapshot every {SNAPSHOT_EVERY} tasks, compared "
                "by line with one after the first task",
                _guides,
                must=("snapshots compared", "lines", "bytes traced"),
                environ={"PYTHONTRACEMALLOC": str(frames)},
                # So each batch has the cost of one snapshot, as each hundred tasks have.
                tasks=SNAPSHOT_EVERY,
                rounds=rounds,
                in_short=in_short,
            )
            for frames, rounds, in_short in (
                (1, 2, ("empty", "allocating")),
                (10, 1, ("allocating",)),
            )
        ),
        Contender(
            "otel",
            "opentelemetry-instrumentation-celery",
            "SDK in each child, spans and metrics over OTLP/HTTP, intervals of the SDK",
            lambda: _opentelemetry(system_metrics=False),
            needs=_OTEL,
            must=("spans", "points"),
        ),
        Contender(
            "otel_system",
            "opentelemetry with system-metrics",
            "`SystemMetricsInstrumentor().instrument()` beside it, all its default metrics",
            lambda: _opentelemetry(system_metrics=True),
            needs=(*_OTEL, "opentelemetry-instrumentation-system-metrics"),
            must=("spans", "points", "points of process memory"),
        ),
        Contender(
            "ddtrace",
            "ddtrace, memory profiler",
            "`import ddtrace.profiling.auto`, profilers of memory and heap alone, into files",
            _ddtrace,
            needs=("ddtrace", "zstandard"),
            must=("files", "heap samples", "bytes sampled"),
            environ={
                **_MEMALLOC_OFF,
                "DD_PROFILING_OUTPUT_PPROF": f"${DIRECTORY}/ddtrace",
                "DD_TRACE_ENABLED": "false",
                "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
                "DD_REMOTE_CONFIGURATION_ENABLED": "false",
            },
        ),
        Contender(
            "pyroscope",
            "pyroscope-io, memory profiler",
            "`configure(mem_enabled=True, cpu_enabled=False)` in each child",
            _pyroscope,
            needs=("pyroscope-io",),
            must=("pushes", "samples in use", "bytes sampled"),
        ),
        Contender(
            "memray",
            "memray, aggregated",
            "a `Tracker` with `AGGREGATED_ALLOCATIONS` from the start of each child to its end",
            _memray,
            needs=("memray",),
            must=("files", "places with bytes in use"),
            share=0.5,
        ),
        Contender(
            "psutil",
            "psutil before and after",
            "RSS read in `task_prerun` and `task_postrun`, added up by task name",
            _psutil,
            needs=("psutil",),
            must=("tasks read",),
        ),
    )
}
