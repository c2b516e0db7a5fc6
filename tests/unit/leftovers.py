"""What a test must leave as it found it: receivers, descriptors, threads and tracing."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import signals
from celery.utils.dispatch import Signal

_DESCRIPTORS = Path("/proc/self/fd")


@dataclass(frozen=True)
class ProcessWideState:
    """What all tests of a process share."""

    receivers: dict[str, list[Any]]
    descriptors: dict[str, str]
    threads: set[threading.Thread]
    tracing: bool


def process_wide_state() -> ProcessWideState:
    """The state now."""
    return ProcessWideState(
        receivers={
            name: [key for key, _ in signal.receivers]
            for name, signal in vars(signals).items()
            if isinstance(signal, Signal)
        },
        descriptors=open_descriptors(),
        threads=set(threading.enumerate()),
        tracing=tracemalloc.is_tracing(),
    )


def open_descriptors() -> dict[str, str]:
    """What each descriptor of this process is open on."""
    found = {}
    for entry in list(_DESCRIPTORS.iterdir()) if _DESCRIPTORS.exists() else ():
        # The descriptor of the listing itself is gone again.
        with suppress(OSError):
            found[entry.name] = str(entry.readlink())
    return found


def new_since(before: ProcessWideState) -> ProcessWideState | None:
    """What there is now and was not then; nothing where that is nothing."""
    now = process_wide_state()
    new = ProcessWideState(
        receivers={
            name: keys for name, keys in now.receivers.items() if keys != before.receivers.get(name)
        },
        descriptors=dict(now.descriptors.items() - before.descriptors.items()),
        threads=now.threads - before.threads,
        tracing=now.tracing != before.tracing,
    )
    return new if any((new.receivers, new.descriptors, new.threads, new.tracing)) else None


@contextmanager
def no_leftovers() -> Iterator[None]:
    """Fail where something is there after the block that was not there before it."""
    before = process_wide_state()
    yield
    if new_since(before):
        # A closed session's sockets may be held by a cycle.
        gc.collect()
    assert new_since(before) is None
