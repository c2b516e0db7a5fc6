"""Copies of the context, and callbacks of weak references, are kept with their values."""

from __future__ import annotations

import contextvars
import weakref

from tests.truth.app import app
from tests.truth.case import Case

_request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
_contexts: list[contextvars.Context] = []
_observed: list[weakref.ref[_Subject]] = []
CASES = (
    Case("contexts kept", "handle", {"handle": 15}, holder=("_contexts",)),
    Case("callbacks of weak references", "observe", {"observe": 15}, holder=("_observed",)),
)


class _Subject:
    pass


_subject = _Subject()


@app.task
def handle(number: int) -> None:
    """Keeps the context that a callback would need."""
    _request.set(str(number).rjust(3_000))  # the line
    _contexts.append(contextvars.copy_context())


@app.task
def observe(number: int) -> None:
    """Means to be called when the subject is gone, which it never is."""
    text = str(number).rjust(3_000)  # the line
    _observed.append(weakref.ref(_subject, lambda _: len(text)))
