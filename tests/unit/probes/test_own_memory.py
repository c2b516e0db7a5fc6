"""This process's own RSS and peak, from frozen trees and from the real kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_celery_memory.probes.own_memory import (
    LinuxProcessProbe,
    ProcessProbe,
    PsutilProcessProbe,
    open_process_probe,
)
from tests.unit.leftovers import open_descriptors

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20
STATUS = "Name:\tVmHWM:\t9 kB\nGroups:\t{groups}\nVmHWM:\t   29000 kB\nVmRSS:\t   28004 kB\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A frozen /proc with nothing but what the probe opens."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "statm").write_text("52340 7001 2200 1 0 9800 0\n")
    (tmp_path / "self" / "clear_refs").write_text("")
    # This process's own peak is above that RSS, so that it is asked for here.
    (tmp_path / "self" / "status").write_text(STATUS.format(groups="0 10"))
    return tmp_path


@pytest.fixture
def real() -> Iterator[ProcessProbe]:
    probe = open_process_probe()
    yield probe
    probe.close()


def test_rss_is_the_second_number_of_statm_in_pages(proc: Path) -> None:
    probe = LinuxProcessProbe(proc)
    assert probe.rss_bytes() == 7001 * PAGE_BYTES
    probe.close()


def test_rss_is_read_again_through_the_same_descriptor(proc: Path) -> None:
    probe = LinuxProcessProbe(proc)
    (proc / "self" / "statm").write_text("52340 9 2200 1 0 9800 0\n")
    assert probe.rss_bytes() == 9 * PAGE_BYTES
    probe.close()


def test_a_new_peak_is_asked_for_by_writing_5(proc: Path) -> None:
    probe = LinuxProcessProbe(proc)
    probe.reset_peak()
    assert (proc / "self" / "clear_refs").read_text() == "55"  # one when it was opened
    probe.close()


def test_without_clear_refs_there_is_rss_and_no_peak(proc: Path) -> None:
    (proc / "self" / "clear_refs").unlink()
    probe = LinuxProcessProbe(proc)
    assert (probe.rss_bytes(), probe.resets_peak) == (7001 * PAGE_BYTES, False)
    probe.close()


def test_where_clear_refs_refuses_the_write_there_is_no_peak(proc: Path) -> None:
    (proc / "self" / "clear_refs").unlink()
    (proc / "self" / "clear_refs").symlink_to("/dev/full")
    probe = LinuxProcessProbe(proc)
    assert not probe.resets_peak
    probe.close()


@pytest.mark.parametrize("groups", ["", " ".join(map(str, range(1_000_000, 1_002_000)))])
def test_the_peak_of_a_process_that_was_started_by_a_larger_one_is_its_own(
    proc: Path, groups: str
) -> None:
    (proc / "self" / "status").write_text(STATUS.format(groups=groups))
    probe = LinuxProcessProbe(proc)
    probe.reset_peak()
    assert (probe.resets_peak, probe.peak_bytes()) == (True, 29_000 * 1024)
    probe.close()


@pytest.mark.parametrize("content", [None, "", "VmHWM: 7 kB", "\nVmHWM: 7", "\nVmHWM: x kB"])
def test_where_only_somebody_else_s_peak_can_be_read_there_is_none(
    proc: Path, content: str | None
) -> None:
    (proc / "self" / "status").unlink()
    if content is not None:
        (proc / "self" / "status").write_text(content)
    probe = LinuxProcessProbe(proc)
    assert (probe.rss_bytes(), probe.resets_peak) == (7001 * PAGE_BYTES, False)
    probe.close()


@pytest.mark.parametrize("content", ["", "52340\n", "what is this\n", "1 -7\n", "1 " + "9" * 20])
def test_a_statm_of_another_form_cannot_be_opened_and_leaves_no_descriptor(
    proc: Path, content: str
) -> None:
    (proc / "self" / "statm").write_text(content)
    with pytest.raises((ValueError, IndexError)):
        LinuxProcessProbe(proc)


def test_a_closed_probe_says_so_and_closes_nothing_twice(proc: Path) -> None:
    probe = LinuxProcessProbe(proc)
    probe.close()
    probe.close()
    assert not probe.resets_peak
    with pytest.raises(OSError, match="the probe is closed"):
        probe.rss_bytes()


def test_the_descriptors_are_not_handed_to_programs_that_a_task_starts(proc: Path) -> None:
    before = open_descriptors()
    probe = LinuxProcessProbe(proc)
    ours = open_descriptors().keys() - before.keys()
    assert [os.get_inheritable(int(fd)) for fd in ours] == [False] * 3
    probe.close()


def descriptors_of(probe: LinuxProcessProbe) -> list[int]:
    """The numbers under which a probe keeps its files open."""
    files = (probe._statm, probe._clear_refs, probe._status)
    return [file.kept.fd for file in files if file is not None]


def take_away(numbers: list[int], by: int) -> None:
    """What a task may do: each number belongs to another open file afterwards."""
    for number in numbers:
        os.dup2(by, number)


@pytest.fixture
def users_file(tmp_path: Path) -> Iterator[int]:
    """A user's file, open for reading and writing."""
    fd = os.open(tmp_path / "users", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def test_whoever_takes_its_numbers_keeps_them_and_gets_not_one_byte(
    proc: Path, users_file: int
) -> None:
    probe = LinuxProcessProbe(proc)
    taken = descriptors_of(probe)
    take_away(taken, users_file)
    assert (probe.rss_bytes(), probe.peak_bytes()) == (7001 * PAGE_BYTES, 29_000 * 1024)
    (proc / "self" / "clear_refs").write_text("")
    probe.reset_peak()
    assert (proc / "self" / "clear_refs").read_text() == "5"
    probe.close()
    assert os.fstat(users_file).st_size == 0
    for number in taken:
        assert os.fstat(number).st_ino == os.fstat(users_file).st_ino
        os.close(number)


def test_a_full_pipe_on_its_numbers_blocks_nothing(proc: Path) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(write_end, bytes(4096))
    os.set_blocking(write_end, True)
    probe = LinuxProcessProbe(proc)
    taken = descriptors_of(probe)
    take_away(taken, write_end)
    probe.reset_peak()
    assert (probe.rss_bytes(), probe.peak_bytes()) == (7001 * PAGE_BYTES, 29_000 * 1024)
    probe.close()
    for number in (read_end, write_end, *taken):
        os.close(number)


def test_however_often_they_are_taken_the_numbers_go_on_and_few_descriptors_are_kept(
    proc: Path, users_file: int
) -> None:
    probe = LinuxProcessProbe(proc)
    before = len(open_descriptors())
    taken: set[int] = set()
    for _ in range(300):
        numbers = [fd for fd in descriptors_of(probe) if fd not in taken]
        take_away(numbers, users_file)
        taken.update(numbers)
        assert probe.rss_bytes() == 7001 * PAGE_BYTES
        probe.reset_peak()
        assert probe.peak_bytes() == 29_000 * 1024
    probe.close()
    assert len(open_descriptors()) <= before + 300
    for number in taken:
        os.close(number)


def test_without_proc_psutil_is_asked_and_there_is_no_peak(tmp_path: Path) -> None:
    probe = open_process_probe(tmp_path)
    assert isinstance(probe, PsutilProcessProbe)
    assert not probe.resets_peak
    assert not probe.reset_peak()
    with pytest.raises(OSError, match="no peak that can be reset"):
        probe.peak_bytes()
    probe.close()


def test_both_probes_see_what_was_allocated_and_given_back(real: ProcessProbe) -> None:
    other = PsutilProcessProbe()
    before = real.rss_bytes(), other.rss_bytes()
    block = b"x" * (64 * MIB)
    grown = real.rss_bytes(), other.rss_bytes()
    del block
    after = real.rss_bytes(), other.rss_bytes()
    # A large block is mapped and unmapped whole: what else moves is noise of a few pages.
    assert [round((b - a) / MIB) for a, b in zip(before, grown, strict=True)] == [64, 64]
    assert [round((b - a) / MIB) for a, b in zip(grown, after, strict=True)] == [-64, -64]


def test_a_peak_that_came_and_went_is_seen_once(real: ProcessProbe) -> None:
    real.reset_peak()
    before = real.rss_bytes()
    block = b"x" * (64 * MIB)
    del block
    assert round((real.peak_bytes() - before) / MIB) == 64
    real.reset_peak()
    assert round((real.peak_bytes() - before) / MIB) == 0


def test_without_peaks_the_mark_of_the_process_is_left_alone(real: ProcessProbe) -> None:
    real.reset_peak()
    block = b"x" * (64 * MIB)
    del block
    marked = real.peak_bytes()
    quiet = LinuxProcessProbe(peaks=False)
    assert (quiet.reset_peak(), quiet.resets_peak) == (False, False)
    quiet.close()
    assert real.peak_bytes() == marked


def test_a_mark_above_the_limit_of_memory_per_child_is_kept_and_one_below_is_reset(
    real: ProcessProbe,
) -> None:
    real.reset_peak()
    block = b"x" * (64 * MIB)
    del block
    marked = real.peak_bytes()
    below = LinuxProcessProbe(kept_above_bytes=marked - MIB)
    assert not below.reset_peak()
    below.close()
    assert real.peak_bytes() == marked
    above = LinuxProcessProbe(kept_above_bytes=marked + MIB)
    assert above.reset_peak()
    above.close()
    assert real.peak_bytes() < marked


def test_in_this_process_the_real_probe_is_the_one_that_reads_proc(real: ProcessProbe) -> None:
    assert isinstance(real, LinuxProcessProbe)
