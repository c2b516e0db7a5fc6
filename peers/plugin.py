"""A pytest plugin that instruments the test process, as the environment asks for.

``PEERS_WHEN`` is ``before`` or ``after`` the tests are imported, or nothing for never.
``PEERS_PROVIDER`` measures the tasks that the tests run in their own process, too.
``PEERS_OUTCOMES`` is the file that gets the outcome of each phase of each test, one a line.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

_WHEN = os.environ.get("PEERS_WHEN", "")


def pytest_configure(config: pytest.Config) -> None:
    """Before the tests are imported."""
    if _WHEN == "before":
        _instrument()


def pytest_collection_finish(session: pytest.Session) -> None:
    """After they were imported."""
    if _WHEN == "after":
        _instrument()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what came of a phase of a test; at once, as the next test may end the process."""
    with Path(os.environ["PEERS_OUTCOMES"]).open("a") as file:
        file.write(json.dumps([report.nodeid, report.when, report.outcome]) + "\n")


def _instrument() -> None:
    from otel_celery_memory import CeleryMemoryInstrumentor

    keywords: dict[str, Any] = {}
    if "PEERS_PROVIDER" in os.environ:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader

        keywords["meter_provider"] = MeterProvider([InMemoryMetricReader()])
    CeleryMemoryInstrumentor().instrument(**keywords)
