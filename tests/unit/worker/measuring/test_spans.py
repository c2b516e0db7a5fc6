"""A task's numbers on its span, whoever started that; or on one of our own, made afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery
from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind

from otel_celery_memory.ipc.records import NO_SPAN
from otel_celery_memory.worker.measuring.spans import TaskSpans, span_bytes
from tests.unit.examples import finished

TRACE_ID, SPAN_ID = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
TRACEPARENT = f"00-{TRACE_ID:032x}-{SPAN_ID:016x}-01"
FULL = finished(
    task_id="id-1",
    time_ns=900,
    start_bytes=1_000,
    delta_bytes=-200,
    peak_bytes=300,
    traced_delta_bytes=-4,
    traced_peak_bytes=5,
)
FULL_ATTRIBUTES = {
    "celery.task.memory.rss.start": 1_000,
    "celery.task.memory.rss.delta": -200,
    "celery.task.memory.rss.peak": 300,
    "celery.task.memory.traced.delta": -4,
    "celery.task.memory.traced.peak": 5,
    "celery.task.memory.exclusive": True,
}


class Tracing:
    """A real tracer provider, and the spans that it was given back."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")

    def ended(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()


@pytest.fixture
def tracing() -> Tracing:
    return Tracing()


@pytest.fixture
def task() -> Iterator[Any]:
    """A Celery task that is running, without trace context."""
    app = Celery("spans", broker="memory://", set_as_current=False)

    @app.task(name="app.task", shared=False)  # type: ignore[untyped-decorator]
    def run() -> None:
        """Never called."""

    with request(run):
        yield run
    app.close()


@contextmanager
def request(task: Any, **headers: object) -> Iterator[None]:
    """The task runs a message with these headers."""
    task.push_request(id="id-1", **headers)
    try:
        yield
    finally:
        task.pop_request()


@contextmanager
def attached(span: trace.Span) -> Iterator[None]:
    """The span is current."""
    token = context.attach(trace.set_span_in_context(span))
    try:
        yield
    finally:
        context.detach(token)


def test_the_span_that_is_recording_gets_the_numbers_and_is_not_ended(
    tracing: Tracing, task: Any
) -> None:
    spans = TaskSpans(tracing.provider)
    span = tracing.tracer.start_span("run/app.task")
    with attached(span):
        found, own = spans.of(task, 500)
        assert (found, own) == (span, False)
        spans.write(span, own, FULL)
    assert span.is_recording()
    span.end()
    (ended,) = tracing.ended()
    assert dict(ended.attributes or {}) == FULL_ATTRIBUTES


def test_numbers_that_were_not_measured_are_left_out(tracing: Tracing, task: Any) -> None:
    span = tracing.tracer.start_span("run/app.task")
    TaskSpans.write(span, False, finished(delta_bytes=7, exclusive=0))
    span.end()
    (ended,) = tracing.ended()
    assert dict(ended.attributes or {}) == {
        "celery.task.memory.rss.start": 1_000,
        "celery.task.memory.rss.delta": 7,
        "celery.task.memory.exclusive": False,
    }


def test_where_nobody_traces_the_task_a_span_is_made_from_its_message(
    tracing: Tracing, task: Any
) -> None:
    spans = TaskSpans(tracing.provider)
    with request(task, traceparent=TRACEPARENT):
        span, own = spans.of(task, 500)
    assert span is not None
    spans.write(span, own, FULL)
    (ended,) = tracing.ended()
    assert ended.parent is not None
    assert (ended.parent.trace_id, ended.parent.span_id) == (TRACE_ID, SPAN_ID)
    assert (ended.name, ended.kind) == ("run/app.task", SpanKind.CONSUMER)
    assert (ended.start_time, ended.end_time) == (500, 900)
    assert dict(ended.attributes or {}) == {
        **FULL_ATTRIBUTES,
        "celery.task.name": "app.task",
        "celery.task.id": "id-1",
    }
    scope = ended.instrumentation_scope
    assert scope is not None
    assert scope.name == "otel_celery_memory"


def test_trace_context_that_comes_as_a_list_is_understood(tracing: Tracing, task: Any) -> None:
    with request(task, traceparent=[TRACEPARENT]):
        span, own = TaskSpans(tracing.provider).of(task, 500)
    assert span is not None
    assert own
    assert span.get_span_context().trace_id == TRACE_ID
    span.end()


def test_without_trace_context_the_span_is_a_root(tracing: Tracing, task: Any) -> None:
    span, own = TaskSpans(tracing.provider).of(task, 500)
    assert span is not None
    TaskSpans.write(span, own, FULL)
    (ended,) = tracing.ended()
    assert ended.parent is None


def test_a_remote_parent_that_is_current_does_not_count_as_somebody_who_traces(
    tracing: Tracing, task: Any
) -> None:
    remote = trace.NonRecordingSpan(trace.SpanContext(TRACE_ID, SPAN_ID, is_remote=True))
    with attached(remote):
        span, own = TaskSpans(tracing.provider).of(task, 500)
    assert span is not None
    assert own
    span.end()


def test_a_task_that_somebody_traces_and_sampled_out_gets_no_span(
    tracing: Tracing, task: Any
) -> None:
    unsampled = Tracing(sampler=ALWAYS_OFF).tracer.start_span("run/app.task")
    with attached(unsampled):
        assert TaskSpans(tracing.provider).of(task, 500) == (None, False)
    assert tracing.ended() == ()


def test_a_span_of_our_own_that_is_sampled_out_is_no_span(task: Any) -> None:
    assert TaskSpans(Tracing(sampler=ALWAYS_OFF).provider).of(task, 500) == (None, False)


@pytest.mark.parametrize("provider", [trace.NoOpTracerProvider(), trace.ProxyTracerProvider()])
def test_where_tracing_is_not_set_up_there_is_no_span(
    provider: trace.TracerProvider, task: Any
) -> None:
    assert TaskSpans(provider).of(task, 500) == (None, False)


def test_a_global_provider_is_used_from_the_moment_it_is_set(
    tracing: Tracing, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = TaskSpans()
    assert spans.of(task, 500) == (None, False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", tracing.provider)
    span, own = spans.of(task, 500)
    assert (own, span is not None and span.is_recording()) == (True, True)


def test_a_provider_that_the_environment_names_is_asked_for(
    tracing: Tracing, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_TRACER_PROVIDER", "ours")
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracing.provider)
    assert TaskSpans().of(task, 500)[1] is True


def test_a_span_s_identity_is_its_trace_its_span_and_its_flags(tracing: Tracing) -> None:
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    identity = trace.SpanContext(TRACE_ID, SPAN_ID, is_remote=False, trace_flags=flags)
    assert span_bytes(trace.NonRecordingSpan(identity)) == bytes.fromhex(
        f"{TRACE_ID:032x}{SPAN_ID:016x}01"
    )
    assert span_bytes(None) == span_bytes(trace.INVALID_SPAN) == NO_SPAN
