"""Another process's memory and descriptors, from frozen trees and from real children."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path

import pytest

from otel_celery_memory.probes.procfs import (
    TICK_NS,
    ProcessReading,
    ProcessSize,
    ProcessStat,
    Rlimits,
    SharedMemory,
    boot_time_ns,
    exists,
    lists_children,
    read_children,
    read_cmdline,
    read_pids,
    read_process,
    read_rlimits,
    read_rss_bytes,
    read_shared,
    read_size,
    read_stat,
)
from tests.unit.leftovers import open_descriptors

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

STATUS = """\
Name:\tcelery
Umask:\t0022
State:\tS (sleeping)
Tgid:\t41
Groups:\t0 10
VmPeak:\t  700000 kB
VmSize:\t  600000 kB
VmRSS:\t   28004 kB
VmSwap:\t    1536 kB
HugetlbPages:\t       0 kB
Threads:\t3
"""
LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max open files            1024                 1048576              files
Max address space         unlimited            unlimited            bytes
"""
BEYOND = [f"Max data size {number} 7 bytes" for number in (2**63, 10**19 - 1, "9" * 5_000)]
ROLLUP = """\
55d0a2c00000-7ffd3b5f2000 ---p 00000000 00:00 0                          [rollup]
Rss:               28004 kB
Pss:               19321 kB
Pss_Anon:          15000 kB
Shared_Clean:       9000 kB
Shared_Dirty:       3836 kB
Private_Clean:        64 kB
Private_Dirty:     15104 kB
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A frozen /proc with process 41 and its three files; `self` says that it is one."""
    directory = tmp_path / "41"
    directory.mkdir()
    (tmp_path / "self").symlink_to("41")
    (directory / "statm").write_text("150000 7001 2200 1 0 9800 0\n")
    (directory / "status").write_text(STATUS)
    (directory / "limits").write_text(LIMITS)
    (directory / "smaps_rollup").write_text(ROLLUP)
    return tmp_path


def test_everything_cheap_about_a_process_is_read(proc: Path) -> None:
    assert read_process(41, proc) == ProcessReading(
        rss_bytes=7001 * PAGE_BYTES,
        virtual_bytes=600_000 * 1024,
        swap_bytes=1_536 * 1024,
        unique_bytes=None,
        proportional_bytes=None,
        open_files=None,
        open_files_limit=1_024,
        threads=3,
    )


def test_a_reading_cannot_be_changed_and_has_only_what_was_read() -> None:
    reading = ProcessReading(rss_bytes=5)
    assert {name for name, value in asdict(reading).items() if value is not None} == {"rss_bytes"}
    with pytest.raises(FrozenInstanceError):
        reading.rss_bytes = 6  # type: ignore[misc]


def test_the_limit_of_descriptors_may_be_none(proc: Path) -> None:
    (proc / "41" / "limits").write_text(LIMITS.replace("1024 ", "unlimited "))
    reading = read_process(41, proc)
    assert reading is not None
    assert reading.open_files_limit is None


@pytest.mark.parametrize("name", ["status", "limits"])
@pytest.mark.parametrize("content", [None, "", "Vm\nMax open files\nVmSize: many kB\n\xff"])
def test_a_file_that_is_missing_or_of_another_form_leaves_its_numbers_out(
    proc: Path, name: str, content: str | None
) -> None:
    if content is None:
        (proc / "41" / name).unlink()
    else:
        (proc / "41" / name).write_bytes(content.encode("latin-1"))
    full = read_process(41, proc)
    assert full is not None
    kept = {
        "status": ProcessReading(rss_bytes=7001 * PAGE_BYTES, open_files_limit=1_024),
        "limits": ProcessReading(
            rss_bytes=7001 * PAGE_BYTES,
            virtual_bytes=600_000 * 1024,
            swap_bytes=1_536 * 1024,
            threads=3,
        ),
    }
    assert full == kept[name]


def test_the_size_is_rss_address_space_and_data(proc: Path) -> None:
    assert read_size(41, proc) == ProcessSize(
        rss_bytes=7001 * PAGE_BYTES,
        virtual_bytes=150_000 * PAGE_BYTES,
        data_bytes=9_800 * PAGE_BYTES,
    )
    (proc / "41" / "statm").write_text("x 7001\n")
    assert read_size(41, proc) == ProcessSize(7001 * PAGE_BYTES, None, None)


def test_the_soft_limits_are_read_and_what_is_no_number_is_none(proc: Path) -> None:
    (proc / "41" / "limits").write_text(
        LIMITS + "Max data size             4096                 8192                 bytes\n"
    )
    assert read_rlimits(41, proc) == Rlimits(None, 4_096, 1_024)
    for content in ("", "Max data size", *BEYOND, "\0" * 70_000):
        (proc / "41" / "limits").write_text(content)
        assert read_rlimits(41, proc) == Rlimits()


@pytest.mark.parametrize("number", ["", "-1", "9" * 25, "9" * 5_000, "\u0663"])
def test_numbers_of_the_rollup_that_are_none_are_left_out(proc: Path, number: str) -> None:
    (proc / "41" / "smaps_rollup").write_text(f"Pss: {number} kB\nPrivate_Dirty: 4 kB\n")
    assert read_shared(41, proc) == SharedMemory(4_096, None)


def test_uss_is_what_is_private_and_pss_what_is_said(proc: Path) -> None:
    assert read_shared(41, proc) == SharedMemory(
        unique_bytes=(64 + 15_104) * 1024,
        proportional_bytes=19_321 * 1024,
        shared_dirty_bytes=3_836 * 1024,
    )


def test_without_a_rollup_neither_is_known(proc: Path) -> None:
    (proc / "41" / "smaps_rollup").unlink()
    assert read_shared(41, proc) == SharedMemory(None, None)


def test_a_process_that_is_gone_has_no_reading(proc: Path) -> None:
    assert (read_rss_bytes(42, proc), read_process(42, proc)) == (None, None)


@pytest.mark.parametrize(
    "content",
    ["", "150000\n", "a b c\n", "1 -7 0\n", "1 " + "9" * 5_000, "1 \u00b2 0", "9" * 10**6],
)
def test_a_statm_of_another_form_is_no_reading(proc: Path, content: str) -> None:
    (proc / "41" / "statm").write_text(content)
    assert read_process(41, proc) is None


def test_a_process_that_has_given_its_memory_back_to_die_has_no_rss(proc: Path) -> None:
    # exit_mm() comes long before the process can be seen to be gone: its last RSS is not zero.
    (proc / "41" / "statm").write_text("0 0 0 0 0 0 0\n")
    assert (read_rss_bytes(41, proc), read_process(41, proc)) == (None, None)


def test_a_dead_child_that_nobody_has_reaped_has_no_rss() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert read_rss_bytes(child.pid) is None
    child.wait()


def test_where_there_is_no_proc_psutil_is_asked(tmp_path: Path) -> None:
    assert (read_rss_bytes(os.getpid(), tmp_path) or 0) > 0
    assert read_rss_bytes(2**22 + 1, tmp_path) is None


@pytest.mark.parametrize("pid", [-1, 2**31, 2**63 - 1])
def test_a_pid_that_is_none_is_a_process_that_is_gone(proc: Path, tmp_path: Path, pid: int) -> None:
    assert (read_size(pid, proc), read_size(pid, tmp_path / "nowhere")) == (None, None)


def test_threads_of_a_real_process_are_counted() -> None:
    before = read_process(os.getpid())
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    during = read_process(os.getpid())
    over.set()
    thread.join()
    assert before is not None
    assert during is not None
    assert before.threads is not None
    assert during.threads == before.threads + 1


def test_open_descriptors_of_a_real_process_are_counted() -> None:
    before = read_process(os.getpid())
    with Path(os.devnull).open(), Path(os.devnull).open():
        after = read_process(os.getpid())
    assert before is not None
    assert after is not None
    assert before.open_files is not None
    assert after.open_files == before.open_files + 2
    assert len(open_descriptors()) == before.open_files


STAT = "41 (a) S 7 (b) S 40 39 38 " + "0 " * 15 + "1234 0 0\n"


def test_where_a_process_belongs_is_read_whatever_its_name_is(proc: Path) -> None:
    (proc / "41" / "stat").write_text(STAT)
    found = read_stat(41, proc)
    assert found == ProcessStat(41, "a) S 7 (b", False, 40, 39, 38, 1_234)
    assert found is not None
    assert not found.is_leader
    assert not found.is_same(None)
    (proc / "41" / "stat").write_text(STAT.replace(") S 40 39", ") Z 40 41"))
    ended = read_stat(41, proc)
    assert ended is not None
    assert (ended.ended, ended.is_leader, ended.is_same(found)) == (True, True, True)


@pytest.mark.parametrize(
    "content", ["", "41", "41 (a)", STAT[:40], STAT.replace("40", "-1"), "\0" * 9_000]
)
def test_a_stat_of_another_form_is_none(proc: Path, content: str) -> None:
    assert read_stat(41, proc) is None
    (proc / "41" / "stat").write_text(content)
    assert read_stat(41, proc) is None


def test_children_are_those_of_all_threads(proc: Path) -> None:
    assert not lists_children(proc)
    assert read_children(41, proc) == []
    for thread, children in ((41, "7 8 "), (43, "9 x -1 \n"), (44, None)):
        (proc / "41" / "task" / str(thread)).mkdir(parents=True)
        if children is not None:
            (proc / "41" / "task" / str(thread) / "children").write_text(children)
    assert sorted(read_children(41, proc)) == [7, 8, 9]
    assert read_pids(proc) == {41}
    assert read_pids(proc / "none") == set()


def test_a_real_child_is_listed_and_has_started_just_now() -> None:
    before_ns = time.time_ns()
    child = subprocess.Popen(["sleep", "60"])
    try:
        stat = read_stat(child.pid)
        assert stat is not None
        started_ns = boot_time_ns() + stat.start_ticks * TICK_NS
        # Cut off to its tick, and two clocks are read one after the other.
        assert before_ns - TICK_NS - 10**6 <= started_ns <= time.time_ns() + 10**6
        assert (stat.parent, stat.session) == (os.getpid(), os.getsid(0))
        assert child.pid in read_pids()
        assert exists(child.pid)
        if lists_children():
            assert child.pid in read_children(os.getpid())
    finally:
        child.kill()
        child.wait()
    assert not exists(child.pid)
    assert not exists(2**70)
    assert read_cmdline(os.getpid()).count("\0") >= 1
