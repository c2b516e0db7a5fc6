"""Each run adds one more finalizer: the library keeps it, the user's line made it."""

from __future__ import annotations

import functools
import weakref

from tests.truth.app import app
from tests.truth.case import Case

CASES = (Case("finalizers through a library", "watch", {"watch": 15}, holder=("finalize",)),)


class _Session:
    pass


_session = _Session()


def _close(text: str) -> int:
    return len(text)


@app.task
def watch(number: int) -> None:
    """Watches one session over and over."""
    weakref.finalize(_session, functools.partial(_close, str(number).rjust(2_000)))  # the line
