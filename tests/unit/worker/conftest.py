"""What the tests of the worker side share: a task, and a recorder that has begun."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from tests.unit.worker.recorder_bench import Child
from tests.unit.worker.recording import Recording


@pytest.fixture
def task() -> Iterator[Any]:
    app = Celery("worker", broker="memory://", set_as_current=False)

    @app.task(name="app.task", shared=False)  # type: ignore[untyped-decorator]
    def run() -> None:
        """Never called."""

    yield run
    app.close()


@pytest.fixture
def recording() -> Recording:
    made = Recording()
    made.recorder.begin(3)
    made.take()
    return made


@pytest.fixture
def child() -> Iterator[Child]:
    """A recorder of a child of the pool, which traces nothing."""
    made = Child(tracing="off")
    yield made
    made.close()
