"""Readings of the worker's processes by slot: one for a moment, the dear ones rarely."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from otel_celery_memory.ipc.records import ProcessUp
from otel_celery_memory.probes.procfs import ProcessReading
from otel_celery_memory.reporter.process_watcher import SHARED_INTERVAL_S, ProcessReadings
from tests.unit.fakes import FakeClock

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


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


def test_readings_are_by_slot_without_processes_that_ended(proc: FrozenProc) -> None:
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


def test_what_locks_a_process_s_memory_map_is_read_a_few_times_a_minute(proc: FrozenProc) -> None:
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


class CostlyClock(FakeClock):
    """Each reading of it takes a second."""

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_what_takes_long_is_read_more_rarely(proc: FrozenProc) -> None:
    clock = CostlyClock()
    proc.process(41, 100, private_kib=5)
    readings = ProcessReadings(lambda: {"main": 41}, proc.root, clock)
    readings.read()
    proc.process(41, 200, private_kib=9)
    # It took a second: a thousandth of the time is seventeen minutes.
    clock.move(900)
    assert readings.read() == {"main": reading(200, 5)}
    clock.move(200)
    assert readings.read() == {"main": reading(200, 9)}


def write_rollup(proc: FrozenProc, shared_kib: int, private_kib: int) -> None:
    (proc.root / "41" / "smaps_rollup").write_text(
        f"Shared_Clean: 9 kB\nShared_Dirty: {shared_kib} kB\nPrivate_Dirty: {private_kib} kB\n"
    )


@pytest.mark.parametrize(
    ("shared_kib", "private_kib", "copied_kib"),
    [
        (300, 100, 0),
        (100, 300, 200),
        (300, 900, 0),  # it has allocated
        (100, 150, 50),  # the rest was freed, or swapped out
        (400, 90, 0),
    ],
)
def test_what_was_shared_at_the_start_and_is_its_own_now_was_copied(
    proc: FrozenProc, shared_kib: int, private_kib: int, copied_kib: int
) -> None:
    proc.process(41, 100)
    readings = ProcessReadings(lambda: {"0": 41}, proc.root, FakeClock())
    write_rollup(proc, 300, 100)
    readings.started(ProcessUp(41, time.time_ns(), 0, 1))
    write_rollup(proc, shared_kib, private_kib)
    found = readings.read()["0"]
    assert (found.unique_bytes, found.unique_at_start_bytes, found.copied_bytes) == (
        private_kib * 1024,
        100 * 1024,
        copied_kib * 1024,
    )


@pytest.mark.parametrize(
    "record",
    [
        ProcessUp(41, 0, 0, 1),  # long ago, or for an earlier reporter
        ProcessUp(41, 2**62, -1, 1),  # the main process shares what its children copy
        ProcessUp(41, 2**62, 0, 0),  # sent again
        ProcessUp(42, 2**62, 0, 1),  # another one
    ],
)
def test_where_the_start_was_not_seen_nothing_is_said_of_it(
    proc: FrozenProc, record: ProcessUp
) -> None:
    proc.process(41, 100)
    write_rollup(proc, 300, 100)
    readings = ProcessReadings(lambda: {"0": 41}, proc.root, FakeClock())
    readings.started(record)
    found = readings.read()["0"]
    assert (found.unique_at_start_bytes, found.copied_bytes) == (None, None)
    assert 42 not in readings._at_start


def test_where_the_rollup_is_hidden_it_is_not_known_what_was_copied(proc: FrozenProc) -> None:
    proc.process(41, 100)
    readings = ProcessReadings(lambda: {"0": 41}, proc.root, FakeClock())
    readings.started(ProcessUp(41, time.time_ns(), 0, 1))
    write_rollup(proc, 300, 100)
    assert readings.read()["0"].copied_bytes is None
