"""Free lists emptied: no garbage is collected, nobody's frozen heap thawed, no finalizer run."""

from __future__ import annotations

import gc
import os
import threading
import tracemalloc
from collections.abc import Iterator

import pytest

from otel_celery_memory.probes.allocators import FreeLists


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """The collector as it was, with nothing frozen."""
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
    """Bytes that look alive after rows were made and dropped, at the line that made them."""
    FreeLists().clear()
    tracemalloc.start()
    len([{"id": number, "of": (number, [])} for number in range(300)])
    before = tracemalloc.get_traced_memory()[0]
    FreeLists().clear()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return before - after


def test_what_was_freed_does_not_look_alive_any_more() -> None:
    assert freed_rows() > 5_000


def test_garbage_is_left_to_python_s_own_collector() -> None:
    gc.disable()
    gone = garbage()
    FreeLists().clear()
    assert gone == []
    gc.collect()
    assert gone == [os.getpid()]


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
    assert gc.get_freeze_count() == frozen
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
    assert done.acquire(timeout=30)
    assert threading.enumerate() == before
