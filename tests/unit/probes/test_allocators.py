"""The interpreter's heap: its blocks, and malloc's own numbers."""

from __future__ import annotations

import contextlib
import ctypes
import sys

import pytest

from otel_celery_memory.probes import allocators
from otel_celery_memory.probes.allocators import READ_MOST_NS, GlibcCounters, HeapReading, read_heap
from otel_celery_memory.probes.own_memory import open_process_probe

MIB = 1 << 20


def test_blocks_are_those_of_the_interpreter() -> None:
    kept = [object() for _ in range(50_000)]
    with_them = read_heap().blocks
    kept.clear()
    assert 49_000 < with_them - read_heap().blocks < 51_000


@pytest.mark.skipif(allocators.glibc.read() is None, reason="this libc has no mallinfo2")
def test_malloc_in_use_has_the_large_blocks_that_were_mapped() -> None:
    before = read_heap()
    block = bytearray(256 * MIB)
    after = read_heap()
    assert before.malloc_used_bytes is not None
    assert after.malloc_used_bytes is not None
    assert round((after.malloc_used_bytes - before.malloc_used_bytes) / MIB) == 256
    assert len(block) == 256 * MIB


@pytest.mark.skipif(allocators._malloc_trim is None, reason="this libc has no malloc_trim")
def test_free_memory_that_malloc_kept_is_given_back() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    # Below malloc's threshold for mappings of their own; the last one keeps the rest in the heap.
    blocks = [ctypes.c_void_p(libc.malloc(64 * 1024)) for _ in range(1_000)]
    for block in blocks:
        ctypes.memset(block, 1, 64 * 1024)
    for block in blocks[:-1]:
        libc.free(block)
    with contextlib.closing(open_process_probe()) as probe:
        before = probe.rss_bytes()
        allocators.give_back_free_memory()
        after = probe.rss_bytes()
    libc.free(blocks[-1])
    assert before - after > 50 * MIB


def test_a_libc_without_malloc_trim_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocators, "_malloc_trim", None)
    allocators.give_back_free_memory()


def test_a_libc_without_mallinfo2_leaves_malloc_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocators, "glibc", GlibcCounters())
    reading = read_heap()
    assert reading == HeapReading(reading.blocks, None, None)
    assert reading.blocks == pytest.approx(sys.getallocatedblocks(), rel=0.01)


def test_counters_that_hold_a_run_for_long_are_read_once() -> None:
    took_ns = iter([1_000, READ_MOST_NS, READ_MOST_NS + 1])
    now_ns, reads = 0, 0

    def read() -> str:
        nonlocal now_ns, reads
        now_ns += next(took_ns)
        reads += 1
        return "counters"

    counters = GlibcCounters(read, lambda: now_ns)
    assert [counters.read() for _ in range(5)] == ["counters"] * 3 + [None, None]
    assert (reads, counters.too_slow) == (3, True)


def test_where_malloc_s_counters_are_too_slow_its_memory_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = GlibcCounters(lambda: None)
    slow.too_slow = True
    monkeypatch.setattr(allocators, "glibc", slow)
    reading = read_heap()
    assert reading == HeapReading(reading.blocks, None, None)
