"""Every telemetry test is followed by a look at what it left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.leftovers import no_leftovers


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No receiver, descriptor, thread or tracing outlives a test."""
    with no_leftovers():
        yield
