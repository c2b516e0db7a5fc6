"""The page on OpenTelemetry says what the code does: its file can be used, its table is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from otel_celery_memory.config_file import own_options
from otel_celery_memory.settings import Settings
from otel_celery_memory.telemetry.declared import exporters_to_try, from_file
from otel_celery_memory.telemetry.providers import Parts
from semconv.registry import CORRESPONDING

PAGE = Path(__file__).parents[2] / "docs" / "site" / "opentelemetry.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The file that the page shows."""
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    made = tmp_path / "otel.yaml"
    made.write_text(shown)
    return str(made)


def test_the_file_that_it_shows_declares_what_is_said_of_it(path: str) -> None:
    assert [(each.signal, each.place) for each in exporters_to_try(path)] == [
        ("METRICS", "http://collector:4318/v1/metrics (otlp_http)"),
        ("LOGS", "http://collector:4318/v1/logs (otlp_http)"),
    ]
    providers = from_file(path, "w@box", Parts(15.0, lambda events: None, None))
    assert providers.resource.attributes["service.name"] == "shop"
    # As it has views.
    assert (providers.acknowledges, providers.own_histograms) == (True, False)
    # Nothing was recorded: nothing is sent to whoever is called collector.
    providers.shutdown_metrics()
    providers.logs.shutdown()


def test_the_options_that_it_shows_are_settings(path: str) -> None:
    declared = own_options({"OTEL_CONFIG_FILE": path})
    settings, errors = Settings.load_usable({}, {}, declared, path)
    assert (settings.overhead_budget, settings.sites_include, errors) == (0.02, ("*/shop/*",), ())


def test_its_table_is_that_of_the_registry() -> None:
    rows = re.findall(r"^\| `(celery\.\S+)` \| `(\S+)` \| (.+) \|$", TEXT, re.MULTILINE)
    assert {name: f"OpenTelemetry has `{theirs}`: {why}." for name, theirs, why in rows} == {
        metric.name: text for metric, text in CORRESPONDING.items()
    }
