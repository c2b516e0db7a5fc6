"""What a worker says of being measured: the line at its start, warnings, its statistics."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from otel_celery_memory.conventions import VERSION
from otel_celery_memory.destination import Destination, read_destination
from otel_celery_memory.ipc.records import tally_text
from otel_celery_memory.probes.abilities import Ability
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.lifecycle import announcement
from otel_celery_memory.worker.lifecycle.announcement import announce, section, started_text

VIEW: dict[str, Any] = {
    "tracing": {"mode": "off"},
    "measured": 12,
    "processes": [{"rss": 300}, {"rss": 500}, {"rss": None}],
    "tasks": [
        {"name": "shop.leak", "retained_per_run": 1_024},
        {"name": "shop.noop", "retained_per_run": None},
    ],
    "sites": [{"name": "shop/feeds.py:41"}],
    "losses": [{"times": 2}, {"times": 1}],
}


def destinations(**environ: str) -> list[Destination]:
    return [read_destination(signal, environ) for signal in ("METRICS", "LOGS")]


def test_the_line_has_the_version_where_it_goes_how_it_traces_and_what_is_missing() -> None:
    missing = [Ability("RSS"), Ability("peaks", "no /proc"), Ability("files", "no /proc")]
    assert started_text(Settings(), "process 7", destinations(), missing) == (
        f"otel_celery_memory: {VERSION} measures the tasks of this worker: sent to "
        "http://localhost:4318 (http/protobuf) every 15 s by process 7; allocations are traced "
        "within 0.01 of the tasks' CPU time and 0.25 s a run (1 frame); not measured here: peaks "
        "(no /proc); files (no /proc)"
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Settings(tracing="off"), "; allocations are not traced"),
        (Settings(tracing="always", frames=5), "traced always, which is slow (5 frames)"),
    ],
)
def test_how_allocations_are_traced_is_said(settings: Settings, said: str) -> None:
    assert started_text(settings, "process 7", destinations(), []).endswith(said)


def test_metrics_and_events_that_go_to_two_places_are_told_apart() -> None:
    to = destinations(OTEL_LOGS_EXPORTER="none", OTEL_EXPORTER_OTLP_ENDPOINT="http://u:p@c:1")
    text = started_text(Settings(), "process 7", to, [])
    assert ": metrics are sent to http://c:1 (http/protobuf), events to nowhere, every" in text


def test_what_is_asked_for_in_vain_is_warned_of_once_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    environ = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "smoke",
        "OTEL_CELERY_MEMORY_TRACE": "off",
        "OTEL_CELERY_MEMORY_DIRECTORY": "of spawned children, not of users",
    }
    announce(Settings(), "process 7", environ)
    assert [
        (record.levelname, record.getMessage().partition(": ")[2][:45]) for record in caplog.records
    ] == [
        ("INFO", f"{VERSION} measures the tasks of this worker: sent to"[:45]),
        ("WARNING", "OTEL_EXPORTER_OTLP_PROTOCOL=smoke cannot be h"),
        ("WARNING", "OTEL_CELERY_MEMORY_TRACE is no setting, and i"),
    ]


def test_a_worker_that_cannot_say_it_starts_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(environ: object) -> None:
        raise RuntimeError("no abilities")

    monkeypatch.setattr(announcement, "read_abilities", broken)
    announce(Settings(), "process 7", {})
    assert "what is measured cannot be said" in caplog.text


def test_the_statistics_sum_up_the_view() -> None:
    assert section(Settings(), "process 7", VIEW) == {
        "version": VERSION,
        "exported_by": "process 7",
        "tracing": "off",
        "tasks_measured": 12,
        "processes": 3,
        "rss": 800,
        "largest_rss": 500,
        "retained_per_run": {"shop.leak": 1_024},
        "top_site": "shop/feeds.py:41",
        "lost_processes": 3,
    }


def test_the_statistics_without_a_view_say_how_it_is_measured() -> None:
    found = section(Settings(), "the processes that run them", None)
    assert found == {
        "version": VERSION,
        "exported_by": "the processes that run them",
        "tracing": "budget",
    }


def test_the_tally_counts_in_words() -> None:
    assert [tally_text(1, 0), tally_text(1_200, 1, restarts=2)] == [
        "otel_celery_memory: 1 task measured, 0 records dropped",
        "otel_celery_memory: 1,200 tasks measured since the reporter was last started again, "
        "1 record dropped",
    ]
