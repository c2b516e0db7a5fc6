"""Which messages the main process holds, and how large their bodies are.

A message with an ETA is taken from the broker at once and waits in the main process, and each of
them raises the prefetch count: thousands are as many objects there. Read from Celery's own sets and
from its timer; no message is decoded, and nothing is called that a task could define.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

from celery.worker import state
from celery.worker.request import Request

from otel_celery_memory.ipc.records import MessagesHeld

_SAMPLED = 100
"""So many bodies of each state are measured."""
_EXAMINED_MAX = 10_000
"""Of a timer with twice as many entries or more every n-th is examined: it takes a millisecond."""


def read_messages_held(worker: Any, main_pid: int) -> MessagesHeld:
    """The messages that this process holds; called in the thread of the worker's timer."""
    active, all_reserved = state.active_requests, state.reserved_requests
    waiting = _waiting_for_their_time(worker.timer)
    # Those that run are in the set of reserved ones too.
    reserved = max(len(all_reserved) - len(active), 0)
    return MessagesHeld(
        main_pid,
        time.time_ns(),
        len(active),
        reserved,
        None if waiting is None else waiting[0],
        len(state.revoked),
        _size_bytes(active, len(active)),
        _size_bytes(all_reserved, reserved),
        None if waiting is None else _size_bytes(waiting[1], waiting[0]),
    )


def _waiting_for_their_time(timer: Any) -> tuple[int, list[Request]] | None:
    """How many requests wait in a timer, and some of them; ``None`` if not known.

    ``timer.queue`` would be sorted first. gevent's and eventlet's timers have a set of greenlets.
    """
    entries = getattr(getattr(timer, "schedule", timer), "_queue", None)
    if not isinstance(entries, (list, set)):
        return None
    step = max(len(entries) // _EXAMINED_MAX, 1)
    requests = []
    for waiting in list(entries)[::step]:
        arguments = getattr(getattr(waiting, "entry", None), "args", None)
        if arguments and isinstance(arguments[0], Request):
            requests.append(arguments[0])
    # Not the first ones alone: those whose time comes first may be small.
    return len(requests) * step, requests[:: max(len(requests) // _SAMPLED, 1)]


def _size_bytes(requests: Iterable[Request], count: int) -> int | None:
    """The size of so many bodies, by some of them; ``None`` if none can be measured."""
    if not count:
        return 0
    try:
        bodies = [request.body for request in islice(requests, _SAMPLED)]
    except RuntimeError:
        return None  # another thread has changed the set meanwhile
    sizes = [len(body) for body in bodies if isinstance(body, (bytes, bytearray, str))]
    return round(sum(sizes) / len(sizes) * count) if sizes else None
