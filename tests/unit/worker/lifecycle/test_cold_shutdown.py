"""A cold shutdown is heard of before its worker waits for tasks, if its Celery waits at all."""

from __future__ import annotations

from types import SimpleNamespace

from otel_celery_memory.worker.lifecycle.prefork import on_cold_shutdown


def test_it_begins_before_the_worker_waits() -> None:
    heard: list[str] = []
    worker = SimpleNamespace(wait_for_soft_shutdown=lambda: heard.append("waits"))
    on_cold_shutdown(worker, lambda: heard.append("begins"))
    assert heard == []
    worker.wait_for_soft_shutdown()
    assert heard == ["begins", "waits"]


def test_a_worker_that_waits_for_nobody_is_left_as_it_is() -> None:
    worker = SimpleNamespace()
    on_cold_shutdown(worker, lambda: None)
    assert vars(worker) == {}
