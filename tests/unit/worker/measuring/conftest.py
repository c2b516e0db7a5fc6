"""Runs are not sampled where the other records are counted: `test_run_counters` has those."""

from __future__ import annotations

import pytest

from otel_celery_memory.worker.measuring.task_recorder import TaskRecorder


@pytest.fixture(autouse=True)
def _no_samples(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "samples_runs" not in request.fixturenames:
        monkeypatch.setattr(TaskRecorder, "_open_counters", lambda *_: None)


@pytest.fixture
def samples_runs() -> None:
    """Runs are sampled in this test."""
