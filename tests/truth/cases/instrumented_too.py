"""OpenTelemetry's own instrumentation of Celery runs as well: both see each task, nobody leaks."""

from __future__ import annotations

import os

from opentelemetry.instrumentation.celery import CeleryInstrumentor

from tests.truth.app import app
from tests.truth.case import Case

CASES = (Case("beside another instrumentation", None, {"greet": 80}),)
if "TRUTH_BROKER" in os.environ:
    CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]


@app.task
def greet(number: int) -> str:
    """Is healthy."""
    return f"hello {number}"
