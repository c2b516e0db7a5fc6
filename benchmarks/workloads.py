"""The tasks that workers run in the benchmarks, and how many of them make a batch.

A batch of a worker without instrumentation takes some tenths of a second. The tasks are functions
without Celery: `benchmarks.app` makes tasks of them, in each worker the same.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MIX_NAMES = 20
HELD_OBJECTS = 1_000_000
WAIT_S = 0.02
DEPTH = 200
"""Frames below which the task of deep stacks allocates."""

_TEXT = 1_000
_OF_LIST = 170
"""Bytes of a list of one text, with what the text has beside its letters."""
_held: list[list[Any]] = []


def empty() -> None:
    """Does nothing."""


def allocating(dicts: int = 300) -> None:
    """Builds small dictionaries and dumps them as JSON."""
    json.dumps([{"id": n, "name": f"item {n}", "price": n * 1.5} for n in range(dicts)])


def arrays() -> None:
    """Computes with ten arrays of 400 KB."""
    import numpy

    total = numpy.zeros(50_000)
    for number in range(10):
        total += numpy.sqrt(numpy.arange(50_000, dtype=float) + number)
    total.sum()


def waiting() -> None:
    """Waits, as for an answer of somebody else."""
    time.sleep(WAIT_S)


def deep() -> None:
    """Allocates below a deep stack."""
    _below(DEPTH)


def _below(depth: int) -> None:
    if depth:
        _below(depth - 1)
    else:
        allocating(100)


def among_many() -> None:
    """Allocates while a million objects are alive."""
    allocating(100)


def hold() -> None:
    """Makes the objects that are alive: lists, as the collector has to go through them."""
    _held.extend([n] for n in range(HELD_OBJECTS))


def hold_heap() -> None:
    """Makes as many MiB of objects as the environment says: lists of a text of 1 KB each."""
    size = int(os.environ["BENCH_HEAP_MIB"]) << 20
    _held.extend([str(n).rjust(_TEXT)] for n in range(size // (_TEXT + _OF_LIST)))


def release() -> None:
    """Gives them back."""
    _held.clear()


def mixed(number: int) -> Callable[[], None]:
    """One of the tasks of the mix: no two are of the same size."""

    def task() -> None:
        allocating(10 + 5 * number)

    return task


@dataclass(frozen=True)
class Workload:
    """Tasks that take turns in a batch, how many make one, and what it says to readers."""

    name: str
    label: str
    tasks: tuple[str, ...]
    batch: int
    before: str = ""
    """A task that is run before the first batch."""
    after: str = ""


MIX = tuple(f"bench.mixed_{number:02}" for number in range(MIX_NAMES))
FUNCTIONS: Mapping[str, Callable[[], None]] = {
    "bench.empty": empty,
    "bench.allocating": allocating,
    "bench.arrays": arrays,
    "bench.waiting": waiting,
    "bench.deep": deep,
    "bench.among_many": among_many,
    "bench.hold": hold,
    "bench.hold_heap": hold_heap,
    "bench.release": release,
    **{name: mixed(number) for number, name in enumerate(MIX)},
}
WORKLOADS = {
    each.name: each
    for each in (
        Workload("empty", "empty", ("bench.empty",), 400),
        Workload("allocating", "JSON of 300 dicts", ("bench.allocating",), 240),
        Workload("arrays", "NumPy arrays", ("bench.arrays",), 160),
        Workload("waiting", "waits 20 ms", ("bench.waiting",), 20),
        Workload("deep", "200 frames deep", ("bench.deep",), 240),
        Workload("mix", "mix of 20 names", MIX, 300),
        # The last one: what it leaves to the allocator is in nobody's figures.
        Workload(
            "million",
            "a million objects alive",
            ("bench.among_many",),
            240,
            "bench.hold",
            "bench.release",
        ),
    )
}
