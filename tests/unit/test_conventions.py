"""The contract is consistent in itself: names, units and attributes as the standards ask."""

from __future__ import annotations

import re
from itertools import chain

from opentelemetry.metrics import Meter
from opentelemetry.semconv.attributes import code_attributes

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import ExitReason

_NAME = re.compile(r"[a-z][a-z_]*(\.[a-z][a-z_]*)+")

ATTRIBUTES = {
    value
    for name, value in vars(c).items()
    if name.isupper() and name != "VERSION" and isinstance(value, str) and "." in value
}


def test_no_two_metrics_or_events_share_a_name() -> None:
    names = [metric.name for metric in c.METRICS] + [event.name for event in c.EVENTS]
    assert len(names) == len(set(names))


def test_every_name_is_lower_case_with_dots_and_underscores() -> None:
    names = chain(
        ATTRIBUTES,
        (metric.name for metric in c.METRICS),
        (event.name for event in c.EVENTS),
        (attribute.name for attribute in c.SPAN_ATTRIBUTES),
    )
    assert [name for name in names if not _NAME.fullmatch(name)] == []


def test_every_kind_is_an_instrument_of_the_api() -> None:
    kinds = {metric.kind for metric in c.METRICS}
    assert kinds == {"Histogram", "Counter", "UpDownCounter", "Gauge"}
    for kind in ("histogram", "counter", "up_down_counter", "gauge"):
        assert hasattr(Meter, f"create_{kind}")


def test_units_are_bytes_or_seconds_or_say_what_is_counted_and_one_only_for_a_share() -> None:
    counted = re.compile(r"\{[a-z_]+\}")  # one of it, as OpenTelemetry's conventions write it
    units = {metric.unit for metric in c.METRICS if not counted.fullmatch(metric.unit)}
    assert units == {"By", "By/min", "By/{task}", "s", "1"}
    assert [metric.name for metric in c.METRICS if metric.unit == "1"] == [
        c.LIMIT_UTILIZATION.name,
        c.TRACING_OVERHEAD.name,
    ]


def test_every_attribute_of_a_metric_event_or_span_is_a_constant() -> None:
    used = set(chain.from_iterable(metric.attributes for metric in c.METRICS))
    used |= set(chain.from_iterable(event.attributes for event in c.EVENTS))
    used |= {attribute.name for attribute in c.SPAN_ATTRIBUTES}
    assert used == ATTRIBUTES


def test_metrics_carry_no_attribute_without_bound() -> None:
    unbounded = {c.TASK_ID, c.PROCESS_PID, c.TASK_AGE, c.CODE_FILE, c.CODE_LINE}
    assert [metric.name for metric in c.METRICS if unbounded & set(metric.attributes)] == []


def test_code_attributes_are_those_of_the_semantic_conventions() -> None:
    ours = {c.CODE_FILE, c.CODE_LINE, c.CODE_FUNCTION, c.CODE_STACKTRACE}
    assert ours == {
        code_attributes.CODE_FILE_PATH,
        code_attributes.CODE_LINE_NUMBER,
        code_attributes.CODE_FUNCTION_NAME,
        code_attributes.CODE_STACKTRACE,
    }


def test_the_exit_reasons_told_to_users_are_those_that_are_sent() -> None:
    listed = c.PROCESS_EXITS.meaning.partition(": ")[2].split(", ")
    assert listed == [reason.value for reason in ExitReason]


def test_every_meaning_is_a_phrase_without_a_full_stop() -> None:
    meanings = [metric.meaning for metric in c.METRICS] + [event.when for event in c.EVENTS]
    assert [text for text in meanings if not text or text.endswith(".")] == []


def test_buckets_go_from_64_kib_to_4_gib_in_powers_of_four() -> None:
    assert c.BUCKET_BOUNDS_BYTES == (
        65_536,
        262_144,
        1_048_576,
        4_194_304,
        16_777_216,
        67_108_864,
        268_435_456,
        1_073_741_824,
        4_294_967_296,
    )
