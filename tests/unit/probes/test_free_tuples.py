"""Tuples in the interpreter's free lists, counted in this interpreter."""

from __future__ import annotations

import gc
import sys
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_celery_memory.probes.allocators import level_caches
from otel_celery_memory.probes.free_tuples import (
    KEPT,
    LENGTHS,
    LIST_MAX,
    FreeTuples,
    free_tuples,
    numbers_of_interpreter,
)

kept: list[object] = []


def cut_to_two() -> None:
    """What Celery does in each run: the tuple goes to another list than it came from."""
    tuple(part for part in ("a", "b"))


def keep_one() -> None:
    kept.append((object.__hash__, None))


class Blocks:
    """Blocks in use beside free tuples; it keeps no object between two counts."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._levels = array("q", [0, 0])
        self._found = array("q", [0] * 40)

    def left_by(self, run: Callable[[], object]) -> list[int]:
        """By how many blocks each run has added, but for the first ones."""
        for at in range(len(self._found)):
            self._read(0)
            run()
            self._read(1)
            self._found[at] = self._levels[1] - self._levels[0]
        return list(self._found[10:])

    def _read(self, which: int) -> None:
        level_caches()
        free = self._count()
        self._levels[which] = sys.getallocatedblocks() - free


@pytest.fixture(params=[free_tuples, lambda: FreeTuples().count], ids=["read", "made"])
def blocks_in_use(request: pytest.FixtureRequest) -> Blocks:
    """By the interpreter's own numbers, and by making tuples, which has to do elsewhere."""
    gc.collect()
    return Blocks(request.param())


@pytest.mark.parametrize(("run", "blocks"), [(cut_to_two, 0), (keep_one, 1), (lambda: None, 0)])
def test_a_run_after_a_full_collection_is_what_it_keeps(
    blocks_in_use: Blocks, run: Callable[[], object], blocks: int
) -> None:
    found = blocks_in_use.left_by(run)
    kept.clear()
    # Now and then the interpreter has something of its own.
    assert sum(each == blocks for each in found) >= len(found) - 2


@pytest.mark.parametrize("count", [500, LIST_MAX, 3 * LIST_MAX])
def test_what_a_run_frees_is_not_what_it_keeps(blocks_in_use: Blocks, count: int) -> None:
    def free_them() -> None:
        [(number, number, number, number, number) for number in range(count)]

    found = blocks_in_use.left_by(free_them)
    assert sum(each == 0 for each in found) >= len(found) - 2


def test_this_interpreter_s_own_numbers_are_found_and_are_those_of_tuples_that_were_made() -> None:
    numbers = numbers_of_interpreter(Path("/proc/self/mem"))
    # Claimed for the versions that this package was tried on.
    assert (numbers is not None) is (sys.version_info < (3, 14))
    if numbers is not None:
        tuples = FreeTuples()
        made = tuples.count()
        assert abs(sum(numbers) - made) <= 2
        some = [(1, number, 3, 4, 5, 6, 7) for number in range(50)]
        before = numbers[6]
        some.clear()
        assert numbers[6] - before == 50


@pytest.mark.parametrize("there", [True, False])
def test_where_the_interpreter_s_numbers_are_not_found_tuples_are_made(
    tmp_path: Path, *, there: bool
) -> None:
    """As where the kernel lets no process read itself, or the state is laid out otherwise."""
    memory = tmp_path / "mem"
    if there:
        memory.write_bytes(bytes(1 << 20))
    assert numbers_of_interpreter(memory) is None
    count = free_tuples(memory)
    before = count()
    some = [(1, number, 3, 4, 5, 6, 7) for number in range(50)]
    some.clear()
    assert count() - before <= 50


def test_long_lists_become_short_and_stay_so() -> None:
    """To count thousands at each read would take a run longer than all else."""
    tuples = FreeTuples()
    some = [(number, number, number, number, number) for number in range(LIST_MAX)]
    del some
    counts = array("q", [tuples.count() for _ in range(100)])
    assert counts[0] > LIST_MAX / 2
    assert max(counts[50:]) <= len(LENGTHS) * KEPT


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(*, enabled: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        FreeTuples().count()
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()
