"""The registry of semantic conventions is the contract, in another form."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.semconv._incubating.attributes import cpython_attributes
from opentelemetry.semconv._incubating.metrics import (
    container_metrics,
    cpython_metrics,
    messaging_metrics,
    process_metrics,
)

from otel_celery_memory import conventions as c
from semconv.attributes import ATTRIBUTES, STABLE_ELSEWHERE
from semconv.registry import CORRESPONDING, HERE, generated, used

FILES = generated()
GROUPS: list[dict[str, Any]] = [
    group for text in FILES.values() for group in yaml.safe_load(text).get("groups", [])
]
DEFINED = {
    attribute["id"] for group in GROUPS for attribute in group["attributes"] if "id" in attribute
}


@pytest.mark.parametrize("name", FILES)
def test_the_committed_file_is_what_conventions_make(name: str) -> None:
    assert (HERE / name).read_text(encoding="utf-8") == FILES[name]


def test_nothing_else_is_committed_beside_them() -> None:
    assert {path.name for path in HERE.iterdir()} == set(FILES)


def test_every_attribute_has_a_type_and_a_meaning() -> None:
    assert set(used()) <= {*ATTRIBUTES, *STABLE_ELSEWHERE}
    assert all(each.brief.endswith(".") for each in ATTRIBUTES.values())


def test_every_metric_and_event_is_there_with_instrument_and_unit() -> None:
    metrics = {
        group["metric_name"]: (group["instrument"], group["unit"])
        for group in GROUPS
        if group["type"] == "metric"
    }
    ours = [metric for metric in c.METRICS if metric not in c.GC_METRICS]
    assert metrics == {metric.name: (metric.kind.lower(), metric.unit) for metric in ours}
    events = {group["name"] for group in GROUPS if group["type"] == "event"}
    assert events == {event.name for event in c.EVENTS}


def test_what_is_opentelemetry_s_own_is_imported_and_not_defined_again() -> None:
    made = {
        cpython_metrics.create_cpython_gc_collections: c.GC_COLLECTIONS,
        cpython_metrics.create_cpython_gc_collected_objects: c.GC_COLLECTED,
        cpython_metrics.create_cpython_gc_uncollectable_objects: c.GC_UNCOLLECTABLE,
    }
    for create, metric in made.items():
        instrument = create(MeterProvider(shutdown_on_exit=False).get_meter("ours"))
        assert (instrument.name, instrument.unit, metric.kind) == (  # type: ignore[attr-defined]
            *(metric.name, metric.unit),
            "Counter",
        )
        assert metric.attributes == (c.SLOT, cpython_attributes.CPYTHON_GC_GENERATION)
    (imported,) = [
        content["imports"]["metrics"]
        for text in FILES.values()
        if "imports" in (content := yaml.safe_load(text))
    ]
    assert imported == [metric.name for metric in made.values()]


def test_each_metric_that_conventions_have_a_name_for_says_which_and_why_it_is_another() -> None:
    names = {
        value
        for module in (process_metrics, container_metrics, messaging_metrics)
        for value in vars(module).values()
        if isinstance(value, str)
    }
    notes = {
        group["metric_name"]: group["note"]
        for group in GROUPS
        if "metric" in group["id"] and "note" in group
    }
    named = {name: note.split("`")[1] for name, note in notes.items()}
    assert set(named.values()) <= names
    assert named["celery.worker.memory"] == "process.memory.usage"
    assert len(named) == len(CORRESPONDING)


def test_what_is_referred_to_is_defined_here_or_by_opentelemetry() -> None:
    referred = {
        attribute["ref"]
        for group in GROUPS
        for attribute in group["attributes"]
        if "ref" in attribute
    }
    assert referred - DEFINED == set(STABLE_ELSEWHERE) & set(used())


def test_no_id_is_given_twice() -> None:
    ids = [group["id"] for group in GROUPS]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group["id"])
def test_a_group_has_what_weaver_asks_for(group: dict[str, Any]) -> None:
    assert group["brief"]
    if group["type"] == "metric":
        assert group["instrument"] in ("counter", "updowncounter", "gauge", "histogram")
    for attribute in group["attributes"]:
        if "id" in attribute:
            assert attribute["stability"] == "development"
            assert (
                attribute.get("examples")
                or not isinstance(attribute["type"], str)
                or (attribute["type"] == "boolean")
            )
