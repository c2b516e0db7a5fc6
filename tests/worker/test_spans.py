"""The numbers on the task's span, as an OTLP receiver gets it from a real worker."""

from __future__ import annotations

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanProto

from demo.receiver import Point, Receiver
from tests.processes import wait_until
from tests.worker.harness import Start

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.mark.parametrize("order", ["celery first", "memory first"])
def test_the_span_of_celerys_instrumentation_has_the_same_numbers_in_either_order(
    start: Start, receiver: Receiver, order: str
) -> None:
    environ = {"TEST_INSTRUMENT": order, "OTEL_CELERY_MEMORY_TRACING": "always"}
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        worker.run("keep", 8 << 20)
        worker.stop()
    consumers = [
        span for span in receiver.received.spans if span.kind == SpanProto.SPAN_KIND_CONSUMER
    ]
    assert [span.name for span in consumers] == ["run/tests.worker.app.keep"]
    ours = {
        key: value
        for key, value in consumers[0].attributes.items()
        if key.startswith("celery.task.memory.")
    }
    # celery's own attributes are there as well: the span was not ended early
    assert consumers[0].attributes["celery.action"] == "run"
    start_bytes = ours.pop("celery.task.memory.rss.start")
    assert start_bytes > 10 << 20
    assert ours == {
        "celery.task.memory.exclusive": True,
        **{
            f"celery.task.memory.{name}": int(_only(receiver, name).value)
            for name in ("rss.delta", "rss.peak", "traced.delta", "traced.peak")
        },
    }
    assert any(
        consumers[0].trace_id in point.exemplar_traces
        for point in receiver.received.points
        if point.metric == "celery.task.memory.rss.delta"
    )


def test_without_another_instrumentation_a_span_is_made_from_the_messages_trace_context(
    start: Start, receiver: Receiver
) -> None:
    environ = {"TEST_INSTRUMENT": "spans only"}
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        worker.run("keep", 8 << 20, headers=HEADERS)
        wait_until("a span", lambda: receiver.received.spans, 10)
        worker.stop()
    (span,) = receiver.received.spans
    assert (span.name, span.kind) == ("run/tests.worker.app.keep", SpanProto.SPAN_KIND_CONSUMER)
    assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
    assert span.attributes["celery.task.name"] == "tests.worker.app.keep"
    for name in ("rss.delta", "rss.peak"):
        assert span.attributes[f"celery.task.memory.{name}"] == _only(receiver, name).value


def _only(receiver: Receiver, name: str) -> Point:
    (point,) = receiver.received.latest(f"celery.task.memory.{name}")
    assert point.count == 1
    return point
