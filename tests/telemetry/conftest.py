"""After every telemetry test, what it left behind is checked."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.unit.leftovers import no_leftovers


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No receiver, descriptor, thread or tracing outlives a test."""
    with no_leftovers():
        yield


@pytest.fixture(autouse=True)
def no_otel_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller's environment says of OpenTelemetry is not what is tested."""
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
