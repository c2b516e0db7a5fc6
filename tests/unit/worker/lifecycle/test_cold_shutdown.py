"""The hook runs when a cold shutdown begins, before the worker waits for tasks."""

from __future__ import annotations

from types import SimpleNamespace

from otel_celery_memory.worker.lifecycle.prefork import on_cold_shutdown


def test_it_begins_before_the_worker_waits() -> None:
    calls: list[str] = []
    worker = SimpleNamespace(wait_for_soft_shutdown=lambda: calls.append("waits"))
    on_cold_shutdown(worker, lambda: calls.append("begins"))
    assert calls == []
    worker.wait_for_soft_shutdown()
    assert calls == ["begins", "waits"]


def test_a_worker_without_a_soft_shutdown_is_left_as_it_is() -> None:
    worker = SimpleNamespace()
    on_cold_shutdown(worker, lambda: None)
    assert vars(worker) == {}
