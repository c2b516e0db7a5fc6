"""The kernel's files by property: what is written in them is what is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_celery_memory.probes.limits import (
    CgroupLevel,
    Limits,
    find_cgroup,
    oom_kill_counter,
    read_host_usage,
    read_levels,
    read_limits,
)
from otel_celery_memory.probes.procfs import (
    ProcessReading,
    Rlimits,
    SharedMemory,
    read_process,
    read_rlimits,
    read_shared,
    read_start_ticks,
)
from tests.unit.arbitrary import COUNT
from tests.unit.probes.machine import V1_UNLIMITED, Machine
from tests.unit.probes.sound import sound_machine

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Each example writes the files that it looks at.
on_one_machine = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
BYTES = st.integers(0, 2**62 - 1)
KIB = st.integers(0, 2**53 - 1)
PAGES = st.integers(0, 2**50 - 1)
NAMES = st.binary(min_size=1, max_size=20).filter(
    lambda name: not {0, 10, 47} & set(name) and name not in (b".", b"..")
)
"""What the kernel takes for a cgroup: any bytes but a slash, a newline and a NUL."""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return sound_machine(tmp_path)


@on_one_machine
@given(
    pages=st.tuples(PAGES, PAGES.filter(bool), PAGES),
    sizes=st.tuples(KIB, KIB),
    rollup=st.tuples(KIB, KIB, KIB),
    rlimits=st.tuples(*[st.one_of(st.just("unlimited"), COUNT)] * 3),
    ticks=COUNT,
    name=NAMES,
)
def test_what_is_written_of_a_process_is_what_is_read(
    machine: Machine,
    pages: tuple[int, int, int],
    sizes: tuple[int, int],
    rollup: tuple[int, int, int],
    rlimits: tuple[int | str, int | str, int | str],
    ticks: int,
    name: bytes,
) -> None:
    process = machine.proc / "41"
    virtual, rss, data = pages
    (process / "statm").write_text(f"{virtual} {rss} 1 1 0 {data} 0\n")
    (process / "status").write_bytes(
        b"Name:\t%b\nVmSize:\t%8d kB\nVmSwap:\t%8d kB\n" % (name, *sizes)
    )
    (process / "smaps_rollup").write_text(
        "Pss:  {} kB\nPss_Anon: 5 kB\nPrivate_Clean: {} kB\nPrivate_Dirty: {} kB\n".format(*rollup)
    )
    (process / "stat").write_bytes(b"41 (%b) S%b %d 1" % (name, b" 7" * 18, ticks))
    machine.rlimits(*rlimits)
    expected = Rlimits(*(None if isinstance(each, str) else each for each in rlimits))
    assert read_rlimits(41, machine.proc) == expected
    assert read_process(41, machine.proc) == ProcessReading(
        rss_bytes=rss * PAGE_BYTES,
        virtual_bytes=sizes[0] * 1024,
        swap_bytes=sizes[1] * 1024,
        open_files_limit=expected.open_files,
    )
    own_bytes = (rollup[1] + rollup[2]) * 1024
    assert read_shared(41, machine.proc) == SharedMemory(
        own_bytes if own_bytes < 2**63 else None, rollup[0] * 1024
    )
    assert read_start_ticks(41, machine.proc) == ticks


@on_one_machine
@given(total=KIB, available=KIB, kills=COUNT)
def test_what_is_written_of_the_machine_is_what_is_read(
    machine: Machine, total: int, available: int, kills: int
) -> None:
    (machine.proc / "meminfo").write_text(
        f"MemTotal:       {total} kB\nMemFree: 1 kB\nMemAvailable:   {available} kB\n"
    )
    (machine.proc / "vmstat").write_text(f"nr_free_pages 1\noom_kill {kills}\n")
    assert read_host_usage(machine.proc) == (
        max(total - available, 0) * 1024,
        total * 1024,
    )
    assert oom_kill_counter(42, machine.proc, machine.cgroup)() == kills


LIMIT = st.one_of(st.none(), BYTES)
LEVELS = st.lists(st.tuples(NAMES, BYTES, LIMIT, LIMIT, BYTES), min_size=1, max_size=4)


def lowest(limits: list[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


@given(version=st.sampled_from([1, 2]), levels=LEVELS, swap=st.tuples(BYTES, LIMIT), kills=COUNT)
def test_what_is_written_of_nested_cgroups_of_any_names_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    version: int,
    levels: list[tuple[bytes, int, int | None, int | None, int]],
    swap: tuple[int, int | None],
    kills: int,
) -> None:
    machine = Machine(tmp_path_factory.mktemp("machine"))
    names = [os.fsdecode(name) for name, *_ in levels]
    for depth, (_, used, limit, high, inactive) in enumerate(levels, start=1):
        path = "/".join(names[:depth])
        if version == 2:
            machine.v2(path, used, _or("max", limit), high=_or("max", high))
            stat = machine.cgroup / path / "memory.stat"
            stat.write_text(f"anon 1\ninactive_file {inactive}\n")
        else:
            machine.v1(path, used, _or(V1_UNLIMITED, limit))
            stat = machine.cgroup / "memory" / path / "memory.stat"
            stat.write_text(f"inactive_file 1\ntotal_inactive_file {inactive}\n")
    own = "/".join(names)
    line = f"0::/{own}" if version == 2 else f"4:cpu,memory:/{own}"
    (machine.proc / "41" / "cgroup").write_bytes(os.fsencode(f"9:pids:/x\n{line}\n"))
    if version == 2:
        directory = machine.cgroup / own
        (directory / "memory.swap.current").write_text(f"{swap[0]}\n")
        (directory / "memory.swap.max").write_text(f"{_or('max', swap[1])}\n")
        (directory / "memory.events").write_text(f"low 0\noom 3\noom_kill {kills}\n")
    else:
        directory = machine.cgroup / "memory" / own
        (directory / "memory.oom_control").write_text(f"under_oom 0\noom_kill {kills}\n")
    limits = [limit for _, _, limit, _, _ in levels]
    highs = [high if version == 2 else None for _, _, _, high, _ in levels]
    assert read_limits(41, machine.proc, machine.cgroup) == Limits(
        cgroup_bytes=lowest(limits),
        cgroup_used_bytes=levels[-1][1],
        host_bytes=16_384_000 * 1024,
        cgroup_high_bytes=lowest(highs),
        cgroup_swap_bytes=swap[1] if version == 2 else None,
        cgroup_swap_used_bytes=swap[0] if version == 2 else None,
    )
    assert oom_kill_counter(41, machine.proc, machine.cgroup)() == kills
    found = find_cgroup(41, machine.proc, machine.cgroup)
    assert found is not None
    for level, (_, used, limit, high, inactive) in zip(
        read_levels(found), reversed(levels), strict=True
    ):
        # The page cache is asked for only where it can matter.
        assert level in (
            CgroupLevel(used, inactive, limit, high if version == 2 else None),
            CgroupLevel(used, 0, limit, high if version == 2 else None),
        )
        assert 0 <= level.working_bytes <= used


def _or(unlimited: str, limit: int | None) -> object:
    return unlimited if limit is None else limit
