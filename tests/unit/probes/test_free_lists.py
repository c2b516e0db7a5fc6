"""Free lists emptied: no garbage is collected, nobody's frozen heap thawed, no finalizer run."""

from __future__ import annotations

import gc
import os
import threading
import tracemalloc
from collections.abc import Iterator

import pytest

from otel_celery_memory.probes import allocators
from otel_celery_memory.probes.allocators import FreeLists, SharedHeap


@pytest.fixture(autouse=True)
def thawed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The collector as it was, with nothing frozen; the heap of all tests is no large one."""
    monkeypatch.setattr(allocators, "_EMPTIED_MAX_BLOCKS", 10**9)
    yield
    gc.unfreeze()
    gc.enable()


class Cycle:
    """Garbage that only a collection finds; says when it goes and in which thread."""

    def __init__(self, gone: list[int]) -> None:
        self.itself = self
        self._gone = gone

    def __del__(self) -> None:
        self._gone.append(threading.get_native_id())


def garbage() -> list[int]:
    """Where cyclic garbage of now will tell of its end."""
    gone: list[int] = []
    Cycle(gone)
    return gone


def freed_rows() -> int:
    """Bytes that look alive after rows were made and dropped, until the lists were emptied."""
    FreeLists().clear()
    tracemalloc.start()
    len([{"id": number, "of": (number, [])} for number in range(300)])
    before = tracemalloc.get_traced_memory()[0]
    FreeLists().clear()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return before - after


def just_forked() -> SharedHeap:
    """That of a process in which no full collection was made yet."""
    heap = SharedHeap()
    heap.forked()
    return heap


def blocks_left(lists: FreeLists) -> int:
    """How many blocks look alive at the line that made rows and dropped them."""
    lists.clear()
    tracemalloc.start()
    rows = [{"id": number, "of": []} for number in range(300)]
    del rows
    lists.clear()
    found = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, __file__)])
    tracemalloc.stop()
    return sum(trace.size > 40 for trace in found.traces)


def test_what_was_freed_does_not_look_alive_any_more() -> None:
    assert freed_rows() > 5_000


def test_garbage_is_left_to_python_s_own_collector() -> None:
    gc.disable()
    gone = garbage()
    FreeLists().clear()
    assert gone == []
    gc.collect()
    assert gone == [os.getpid()]


def test_in_a_heap_that_is_shared_it_does_not_look_alive_and_nothing_is_collected() -> None:
    shared = FreeLists(just_forked())
    collections = gc.get_stats()[2]["collections"]
    assert blocks_left(shared) == 0
    assert gc.get_stats()[2]["collections"] == collections


def test_a_large_heap_is_not_collected_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocators, "_EMPTIED_MAX_BLOCKS", 1_000)
    collections = gc.get_stats()[2]["collections"]
    assert blocks_left(FreeLists()) == 0
    assert gc.get_stats()[2]["collections"] == collections


def test_what_was_taken_out_of_the_lists_is_not_kept_longer_than_needed() -> None:
    shared = FreeLists(just_forked())
    shared.clear()
    before = len(gc.get_objects())
    shared.give_back()
    assert len(gc.get_objects()) <= before - 80


def test_until_they_are_given_back_they_are_cleared_in_the_same_way() -> None:
    lists = FreeLists(just_forked())
    lists.clear()
    lists.shared_heap.may_be_copied()
    lists.clear()
    assert (lists.takes_out, lists.clears) == (True, 0)
    lists.give_back()
    lists.clear()
    assert (lists.takes_out, lists.clears) == (False, 1)


def test_beside_a_frozen_heap_that_is_shared_it_is_known_that_the_user_froze_it() -> None:
    gc.freeze()
    lists = FreeLists(just_forked())
    lists.clear()
    assert lists.frozen_by_user


def test_a_heap_is_shared_until_the_first_full_collection_or_until_there_is_a_reason() -> None:
    heap, grows = just_forked(), just_forked()
    assert heap.is_shared()
    grows.may_be_copied()
    assert not grows.is_shared()
    gc.collect(1)
    assert heap.is_shared()
    gc.collect()
    assert not heap.is_shared()
    assert not SharedHeap().is_shared()


def test_nothing_stays_frozen() -> None:
    FreeLists().clear()
    assert gc.get_freeze_count() == 0


def test_a_heap_that_the_user_froze_stays_frozen() -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    lists = FreeLists()
    lists.clear()
    lists.clear()
    assert frozen > 0
    # Some of so many objects may end by themselves meanwhile.
    assert 0 <= frozen - gc.get_freeze_count() < 100
    assert freed_rows() > 5_000


def test_beside_a_frozen_heap_finalizers_run_in_the_main_thread_and_nowhere_else() -> None:
    gc.freeze()
    gone = garbage()
    thread = threading.Thread(target=FreeLists().clear)
    thread.start()
    thread.join()
    assert gone == []
    FreeLists().clear()
    assert gone == [os.getpid()]


def test_beside_a_frozen_heap_a_collector_that_is_off_stays_unused() -> None:
    gc.freeze()
    gc.disable()
    gone = garbage()
    FreeLists().clear()
    assert gone == []
    assert not gc.isenabled()
    gc.unfreeze()
    gc.collect()


def test_a_native_thread_that_clears_them_is_not_listed_among_python_s() -> None:
    gc.freeze()
    done = threading.Lock()
    done.acquire()

    def clear() -> None:
        FreeLists().clear()
        done.release()

    import _thread

    before = threading.enumerate()
    _thread.start_new_thread(clear, ())
    assert done.acquire(timeout=300)
    assert threading.enumerate() == before
