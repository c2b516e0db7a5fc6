"""What the stack's workers go through: minutes of leaks, spikes, recycling, kills and silence.

It goes on until every alert it is meant to fire has fired, within bounds, and for a few minutes at
least, so that panels have something to show.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import psutil
import requests
from celery.result import AsyncResult
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import inject
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.stack.collector import Collector
from tests.stack.leaking_worker import running_leaking_worker
from tests.stack.servers import TOKEN, Stack
from tests.worker.harness import CONTROLLED, Broker, Worker, running_worker

SERVICE = "shop"
MIB = 1 << 20
SHORTEST_S, LONGEST_S = 240.0, 900.0
ADDRESS_SPACE_BYTES = 640 * MIB
DESCRIPTORS = 256
# A ring of a megabyte that nobody reads holds the ends of some 5,000 tasks; the silent worker has
# one child. No more than it takes: on two busy cores a worker may run seventy tasks a second.
FLOOD, FLOOD_A_TURN = 8_000, 200
LEFT_EACH_S = 50.0
"""A process that is left behind stays for two minutes, so that there is always one; a turn of the
load may take seconds where the machine is busy."""
CELERY = str(Path(sys.executable).parent / "celery")


@dataclass
class Told:
    """What came of it: when the scenario began and ended, which alerts fired, with what in them."""

    began_s: float
    ended_s: float = 0.0
    alerts: dict[str, Mapping[str, object]] = field(default_factory=dict)
    fired_after_s: dict[str, float] = field(default_factory=dict)
    sent_in: list[str] = field(default_factory=list)
    """Ids of the traces in which tasks were sent that kill their process."""
    silence_s: dict[str, float] = field(default_factory=dict)
    """When the silent worker's reporter was stopped, its flood was sent and run, and it went on."""


@dataclass(frozen=True)
class Workers:
    """Seven workers, each with a fate of its own."""

    leaky: Worker
    sampled: Worker
    recycled: Worker
    pressed: Worker
    silent: Worker
    refused: Worker
    stuck: Worker


def played(stack: Stack, redis_url: str, directory: Path, wanted: set[str]) -> Told:
    """Play it; done when the wanted alerts have fired, or after the longest time."""
    with ExitStack() as held:
        workers = _start(stack, redis_url, directory, held)
        # What real workers have of verdicts within minutes is no leak of each kind and attribute.
        held.enter_context(
            running_leaking_worker(
                directory,
                {
                    **stack.client_environ(),
                    "OTEL_EXPORTER_OTLP_ENDPOINT": stack.collector.otlp_http_endpoint,
                },
            )
        )
        told = Told(time.time())
        steps = held.enter_context(closing(_steps(stack, workers, told)))
        while True:
            elapsed_s = next(steps)
            _listen(stack, told)
            if elapsed_s > SHORTEST_S and (wanted <= set(told.alerts) or elapsed_s > LONGEST_S):
                break
        told.ended_s = time.time()
    return told


def _start(stack: Stack, redis_url: str, directory: Path, held: ExitStack) -> Workers:
    def start(name: str, collector: Collector, *arguments: str, prefix: str = "", **more: str):  # type: ignore[no-untyped-def]
        environ = {
            **stack.client_environ(),
            "OTEL_SERVICE_NAME": SERVICE,
            "OTEL_CELERY_MEMORY_EXPORT_INTERVAL": "2",
            "OTEL_CELERY_MEMORY_SITES_INTERVAL": "5",
            **more,
        }
        place = directory / name
        place.mkdir()
        return held.enter_context(
            running_worker(
                Broker.redis(redis_url),
                place,
                collector.otlp_http_endpoint,
                arguments=("--concurrency=2", *arguments),
                environ=environ,
                prefix=(*prefix.split(), CELERY),
                name=name,
            )
        )

    traced = {"OTEL_CELERY_MEMORY_TRACING": "always"}
    return Workers(
        leaky=start(
            "leaky",
            stack.collector,
            TEST_INSTRUMENT="celery first",
            OTEL_CELERY_MEMORY_FRAMES="3",
            OTEL_CELERY_MEMORY_CAPTURE_DIRECTORY=str(directory / "captures"),
            **CONTROLLED,
            **traced,
        ),
        # As it is without any setting: where every run is traced, none is a sample for what runs
        # leave behind by the allocators' counters, and nobody asks whose code it was.
        sampled=start("sampled", stack.collector),
        # A service of its own: pages and alerts are by service.
        recycled=start(
            "recycled",
            stack.collector,
            "--max-tasks-per-child=1",
            OTEL_SERVICE_NAME="recycling",
            TEST_LOST_WAIT_S="1",
        ),
        pressed=start(
            "pressed",
            stack.collector,
            "--max-memory-per-child=4000000",
            prefix=f"prlimit --as={ADDRESS_SPACE_BYTES} --nofile={DESCRIPTORS}",
            TEST_INSTRUMENT="celery first",
            **traced,
        ),
        # Its reporter is stopped until the silence is noticed, and must not be replaced before.
        silent=start("silent", stack.collector, "--concurrency=1", TEST_HANG_S="86400"),
        refused=start("refused", stack.refusing),
        # Its spans and events come no further than the Collector.
        stuck=start("stuck", stack.stuck, TEST_INSTRUMENT="celery first", **traced),
    )


def _steps(stack: Stack, workers: Workers, told: Told) -> Generator[float, None, None]:
    """One turn of the load at a time; yields how long it has lasted."""
    began_s = time.monotonic()
    reporter = workers.silent.reporter()
    assert reporter is not None
    captured = False
    turn = flooded = left = 0
    last: AsyncResult | None = None
    silence_s = told.silence_s
    shop = _tracer_provider(stack)
    try:
        while True:
            elapsed_s = time.monotonic() - began_s
            _send(workers, turn)
            if elapsed_s > 30 + left * LEFT_EACH_S:
                workers.sampled.send("leave_processes", 96 * MIB, "child")
                left += 1
            if turn % 45 == 20:
                told.sent_in.append(_kill_in_a_trace(workers.leaky, shop))
            if not captured and elapsed_s > 30:
                workers.leaky.client.control.broadcast(
                    "memory_capture", {"amount": "5"}, destination=[workers.leaky.node]
                )
                captured = True
            # Counted from what was there before: Prometheus sees no increase in a first sample.
            if "stopped" not in silence_s and elapsed_s > 10 and _counts_drops(stack):
                os.kill(reporter, signal.SIGSTOP)
                silence_s["stopped"] = elapsed_s
            if elapsed_s > silence_s.get("stopped", inf) + 50 and flooded < FLOOD:
                for _ in range(FLOOD_A_TURN - 1):
                    workers.silent.send("noop", ignore_result=True)
                last = workers.silent.send("noop")
                flooded += FLOOD_A_TURN
                silence_s["flooded"] = elapsed_s
            if flooded >= FLOOD and "went on" not in silence_s and last is not None:
                if "run" not in silence_s and last.ready():
                    silence_s["run"] = elapsed_s
                if "run" in silence_s and _silence_noticed(stack):
                    os.kill(reporter, signal.SIGCONT)
                    silence_s["went on"] = elapsed_s
            turn += 1
            yield elapsed_s
            time.sleep(max(0.0, began_s + turn - time.monotonic()))
    finally:
        os.kill(reporter, signal.SIGCONT)
        shop.shutdown()


def _send(workers: Workers, turn: int) -> None:
    """The tasks of one turn."""
    for _ in range(4):
        workers.leaky.send("keep", MIB, expires=60)
    workers.leaky.send("noop", expires=60)
    for _ in range(2):
        workers.sampled.send("keep", MIB, expires=60)
    workers.sampled.send("free", 64 * MIB, expires=60)
    if turn % 5 == 2:
        workers.sampled.send("leave_behind", 1000, expires=60)
    if turn % 20 == 10:
        workers.sampled.send("with_processes", 4 * MIB, 3, expires=60)
    if turn % 120 == 60:
        # A message that kills a process each time that it is delivered; slow enough that the size
        # of its run is seen.
        marker = workers.recycled.server.log.parent / f"poison-{turn}"
        workers.recycled.send("poison", str(marker), 6, MIB, expires=60)
    if turn % 60 == 30:
        workers.recycled.send("leave", 3, expires=60)
    _count_objects(workers, turn)
    workers.stuck.send("keep", 1024, expires=60)
    for _ in range(2):
        workers.recycled.send("noop", expires=5)
    if turn % 5 == 0:
        workers.leaky.send("free", 64 * MIB, expires=60)
        workers.refused.send("noop", expires=60)
    if _used(workers.pressed) < 0.93:
        workers.pressed.send("keep", 5 * MIB, expires=60)
    if turn % 10 == 5:
        workers.pressed.send("hold_files", int(DESCRIPTORS * 0.85), expires=60)


def _count_objects(workers: Workers, turn: int) -> None:
    """A census, and a task whose objects it finds."""
    if turn == 90:
        workers.leaky.client.control.broadcast(
            "memory_census",
            {"amount": "5", "task": "tests.worker.app.keep_orders"},
            destination=[workers.leaky.node],
        )
    if 90 <= turn < 150:
        workers.leaky.send("keep_orders", 50, expires=60)


def _kill_in_a_trace(worker: Worker, provider: TracerProvider) -> str:
    """Send a task that kills its process, as an instrumented web server would; its trace's id."""
    headers: dict[str, str] = {}
    with provider.get_tracer("web").start_as_current_span("place an order") as span:
        inject(headers)
        worker.send("die", signal.SIGKILL, headers=headers)
    return f"{span.get_span_context().trace_id:032x}"


def _tracer_provider(stack: Stack) -> TracerProvider:
    """The spans of who sends tasks: they too go through the Collector."""
    session = requests.Session()
    session.trust_env = False  # where REQUESTS_CA_BUNDLE is set, it wins over the certificate
    exporter = OTLPSpanExporter(
        f"{stack.collector.otlp_http_endpoint}/v1/traces",
        certificate_file=str(stack.certificate.certificate),
        headers={"authorization": f"Bearer {TOKEN}"},
        session=session,
    )
    provider = TracerProvider(resource=Resource.create({"service.name": "web"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


def _used(worker: Worker) -> float:
    """How full the fullest child's address space is: beyond 1 Celery ends the whole worker."""
    children = psutil.Process(worker.pid).children()
    return max(each.memory_info().vms for each in children) / ADDRESS_SPACE_BYTES


def _counts_drops(stack: Stack) -> bool:
    counter = 'celery_memory_frames_dropped_total{instance="silent@test"}'
    return bool(stack.prometheus.query(counter))


def _silence_noticed(stack: Stack) -> bool:
    alert = 'ALERTS{alertname="CeleryMemoryReporterSilent", alertstate="firing"}'
    return bool(stack.prometheus.query(alert))


def _listen(stack: Stack, told: Told) -> None:
    """Note what Alertmanager has been told."""
    for alert in stack.alertmanager.alerts():
        name = alert["labels"]["alertname"]
        if name not in told.alerts:
            told.alerts[name] = alert
            told.fired_after_s[name] = time.time() - told.began_s
