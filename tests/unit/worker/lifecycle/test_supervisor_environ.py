"""The reporter's environment: the worker's, without what would instrument the reporter."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import otel_celery_memory
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.lifecycle.supervisor import can_start_again, reporter_environ

ROOT = str(Path(otel_celery_memory.__file__).parents[1])
SETTINGS = Settings.load({"sites_top": 3, "sites_include": ["*/app/*"]}, {})


def test_the_reporter_s_environment_is_the_worker_s_with_our_settings_and_import_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", ["", "/srv/app", "/venv/lib", "/srv/app"])
    environ = {
        "PATH": "/bin",
        "PYTHONPATH": "/otel/opentelemetry/instrumentation/auto_instrumentation:/elsewhere",
        "OTEL_CELERY_MEMORY_SITES_TOP": "99",
        "OTEL_SERVICE_NAME": "shop",
        "PYTHONTRACEMALLOC": "10",
    }
    assert reporter_environ(environ, SETTINGS) == {
        "PATH": "/bin",
        "OTEL_SERVICE_NAME": "shop",
        **SETTINGS.to_environ(),
        "PYTHONPATH": os.pathsep.join(["/srv/app", "/venv/lib", ROOT]),
        "PYTHONSAFEPATH": "1",
    }
    assert environ["OTEL_CELERY_MEMORY_SITES_TOP"] == "99"


def test_auto_instrumentation_is_not_on_the_reporter_s_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    auto = "/venv/lib/opentelemetry/instrumentation/auto_instrumentation"
    monkeypatch.setattr(sys, "path", [auto, "/venv/lib", auto + "/"])
    environ = reporter_environ({}, SETTINGS)
    assert environ["PYTHONPATH"] == os.pathsep.join(["/venv/lib", ROOT])


@pytest.mark.parametrize(
    ("executable", "frozen", "can"),
    [("/py", False, True), ("", False, False), ("/py", True, False)],
)
def test_only_an_interpreter_that_is_not_frozen_can_be_started_again(
    monkeypatch: pytest.MonkeyPatch, executable: str, frozen: bool, can: bool
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    assert can_start_again() is can
