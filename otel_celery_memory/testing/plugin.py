"""The plugin of pytest: the fixture `assert_no_leak`. Nothing is imported before it is called."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from otel_celery_memory import testing


@pytest.fixture(name="assert_no_leak", scope="session")
def _assert_no_leak() -> Callable[..., None]:
    """Run a Celery task some hundred times in a process of its own; fail if it leaks memory."""
    return testing.assert_no_leak
