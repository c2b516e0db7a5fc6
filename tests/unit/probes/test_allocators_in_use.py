"""Which counter of malloc is used, in processes with several allocators."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from ctypes.util import find_library

import pytest

from otel_celery_memory.probes.allocators import (
    malloc_in_use,
    open_files_in_use,
    threads_in_use,
)

_GROWN = """
from otel_celery_memory.probes.allocators import malloc_in_use
in_use = malloc_in_use()
before = in_use()
kept = [bytes(5_000) for _ in range(100)]
print(in_use() - before)
"""


def grown_bytes(**environ: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _GROWN],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_malloc_s_own_counter_follows_what_is_kept() -> None:
    assert 500_000 <= grown_bytes() < 540_000


def test_with_jemalloc_preloaded_its_counter_is_used_and_not_glibc_s() -> None:
    assert find_library("jemalloc"), "install libjemalloc2"
    assert 500_000 <= grown_bytes(LD_PRELOAD="libjemalloc.so.2") < 540_000


def test_of_a_preloaded_malloc_glibc_s_counter_says_nothing() -> None:
    code = (
        "from otel_celery_memory.probes.allocators import read_heap\n"
        "print(read_heap().malloc_used_bytes)"
    )

    def read(**environ: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    assert int(read()) > 100_000
    assert read(LD_PRELOAD="libjemalloc.so.2") == "None"


def test_a_counter_that_does_not_follow_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from otel_celery_memory.probes import allocators

    for liar in (lambda: 0, iter(range(0, 10**9, 10_000)).__next__):
        for name in ("_glibc_in_use", "_jemalloc_in_use", "_tcmalloc_in_use"):
            monkeypatch.setattr(allocators, name, lambda _, liar=liar: liar)
        assert malloc_in_use() is None


class RefusingLibrary:
    """A process whose ``mallctl`` is another program's, or was built without statistics."""

    def __init__(self, answer: int) -> None:
        library = ctypes.CDLL(None)
        self.malloc, self.free = library.malloc, library.free
        self.asked: list[bytes] = []

        def mallctl(name: bytes, *_: object) -> int:
            self.asked.append(name)
            return answer

        self.mallctl = mallctl


@pytest.mark.parametrize("answer", [1, 0], ids=["refuses", "gives no address"])
def test_beside_a_mallctl_that_has_no_counter_glibc_s_is_used(
    answer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = RefusingLibrary(answer)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    in_use = malloc_in_use()
    assert library.asked == [b"thread.allocatedp"]
    assert in_use is not None
    before = in_use() or 0
    kept = bytes(5_000_000)
    assert 5_000_000 <= (in_use() or 0) - before < 5_100_000
    assert len(kept) == 5_000_000


def test_descriptors_and_threads_are_counted() -> None:
    before = open_files_in_use()
    assert before is not None
    read, write = os.pipe()
    assert open_files_in_use() == before + 2
    os.close(read)
    os.close(write)
    assert threads_in_use() is not None
