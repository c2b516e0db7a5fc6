"""Processes watched from outside: their end is noticed, their memory is read by slot."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from selectors import DefaultSelector

import pytest

from otel_celery_memory.probes.proc import ProcessReading
from otel_celery_memory.reporter.watch import (
    SHARED_INTERVAL_S,
    ProcessReadings,
    ProcessWatch,
)
from tests.unit.fakes import FakeClock

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@contextmanager
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until its input ends."""
    command = [sys.executable, "-c", "print(flush=True); input()"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def selector() -> Iterator[DefaultSelector]:
    made = DefaultSelector()
    yield made
    made.close()


@pytest.fixture
def watch(selector: DefaultSelector) -> Iterator[ProcessWatch]:
    made = ProcessWatch(selector)
    yield made
    for pid in list(made._pidfds):
        made.drop(pid)


@pytest.fixture
def no_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")


def test_a_process_s_end_wakes_the_one_who_waits(
    watch: ProcessWatch, selector: DefaultSelector
) -> None:
    with child() as process:
        assert watch.add(process.pid) is True
        assert selector.select(0) == []
        process.kill()
        ((key, _),) = selector.select(60)
        assert (key.data, watch.gone_without_notice()) == (process.pid, [])


def test_what_is_not_there_any_more_is_not_watched(watch: ProcessWatch) -> None:
    with child() as process:
        pass
    assert watch.add(process.pid) is False
    assert watch.sizes() == {}


def test_watching_twice_is_watching_once(watch: ProcessWatch, selector: DefaultSelector) -> None:
    assert [watch.add(os.getpid()), watch.add(os.getpid())] == [True, True]
    assert len(selector.get_map()) == 1


def test_a_process_that_is_dropped_leaves_no_descriptor(
    watch: ProcessWatch, selector: DefaultSelector
) -> None:
    watch.add(os.getpid())
    watch.drop(os.getpid())
    watch.drop(os.getpid())
    assert (len(selector.get_map()), watch.sizes()) == (0, {})


@pytest.mark.usefixtures("no_pidfd")
def test_without_descriptors_of_processes_their_end_is_asked_for(watch: ProcessWatch) -> None:
    with child() as process:
        assert watch.add(process.pid) is True
        assert watch.gone_without_notice() == []
    assert watch.gone_without_notice() == [process.pid]
    assert watch.add(process.pid) is True
    watch.drop(process.pid)
    assert watch.add(process.pid) is False


@pytest.mark.usefixtures("no_pidfd")
def test_somebody_else_s_process_is_taken_for_alive(
    watch: ProcessWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert (watch.add(1), watch.gone_without_notice()) == (True, [])


def test_the_size_of_each_watched_process_is_read(watch: ProcessWatch) -> None:
    with child() as process:
        watch.add(process.pid)
        watch.add(os.getpid())
        sizes = watch.sizes()
    assert sizes.keys() == {process.pid, os.getpid()}
    assert all(size.rss_bytes > 1 << 20 for size in sizes.values())


class FrozenProc:
    """A /proc whose processes are as large as it is said."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "self").mkdir()

    def process(self, pid: int, pages: int, private_kib: int | None = None) -> None:
        directory = self.root / str(pid)
        directory.mkdir(exist_ok=True)
        (directory / "statm").write_text(f"9 {pages} 0 0 0 0 0\n")
        if private_kib is not None:
            (directory / "smaps_rollup").write_text(f"Pss: 7 kB\nPrivate_Dirty: {private_kib} kB\n")


@pytest.fixture
def proc(tmp_path: Path) -> FrozenProc:
    return FrozenProc(tmp_path)


def reading(pages: int, private_kib: int | None = None) -> ProcessReading:
    return ProcessReading(
        rss_bytes=pages * PAGE_BYTES,
        unique_bytes=None if private_kib is None else private_kib * 1024,
        proportional_bytes=None if private_kib is None else 7 * 1024,
    )


def test_readings_are_told_by_slot_and_who_is_gone_is_left_out(proc: FrozenProc) -> None:
    proc.process(41, 100, private_kib=5)
    proc.process(42, 200)
    readings = ProcessReadings(lambda: {"main": 41, "0": 42, "1": 43}, proc.root, FakeClock())
    assert readings.read() == {"main": reading(100, 5), "0": reading(200)}


def test_one_reading_serves_all_metrics_of_a_moment(proc: FrozenProc) -> None:
    clock = FakeClock(100.0)
    proc.process(41, 100)
    readings = ProcessReadings(lambda: {"main": 41}, proc.root, clock)
    readings.read()
    proc.process(41, 900)
    assert readings.read() == {"main": reading(100)}
    clock.move(1)
    assert readings.read() == {"main": reading(900)}


def test_what_locks_a_process_s_memory_map_is_read_once_a_minute(proc: FrozenProc) -> None:
    clock = FakeClock(100.0)
    proc.process(41, 100, private_kib=5)
    readings = ProcessReadings(lambda: {"main": 41}, proc.root, clock)
    readings.read()
    proc.process(41, 200, private_kib=9)
    clock.move(SHARED_INTERVAL_S - 1)
    assert readings.read() == {"main": reading(200, 5)}
    clock.move(1)
    assert readings.read() == {"main": reading(200, 9)}


def test_the_next_process_of_a_slot_has_numbers_of_its_own(proc: FrozenProc) -> None:
    clock, pids = FakeClock(100.0), {"0": 41}
    proc.process(41, 100, private_kib=5)
    proc.process(42, 300, private_kib=8)
    readings = ProcessReadings(lambda: pids, proc.root, clock)
    readings.read()
    pids["0"] = 42
    clock.move(1)
    assert readings.read() == {"0": reading(300, 8)}
    assert list(readings._shared) == [42]
