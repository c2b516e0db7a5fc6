"""Whatever the files of the kernel contain, reading them raises nothing and tells sane numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from otel_celery_memory.probes.limits import oom_kill_counter, read_host_usage, read_limits
from otel_celery_memory.probes.proc import (
    read_process,
    read_rlimits,
    read_shared,
    read_size,
    read_start_ticks,
)
from tests.unit.probes.machine import Machine

STATUS = b"Name:\tcelery\nVmSize:\t  600000 kB\nVmSwap:\t 1536 kB\n"
SOUND = {
    "proc/41/statm": b"150000 7001 2200 1 0 9800 0\n",
    "proc/41/stat": b"41 (a) b) S 1 " + b"7 " * 40,
    "proc/41/status": STATUS,
    "proc/41/smaps_rollup": b"Pss: 19321 kB\nPrivate_Clean: 64 kB\nPrivate_Dirty: 15104 kB\n",
    "proc/41/limits": b"Max data size             4096    8192   bytes\n",
    "proc/41/cgroup": b"4:memory:/a\n0::/a\n",
    "proc/meminfo": b"MemTotal: 4000 kB\nMemAvailable: 1000 kB\n",
    "proc/vmstat": b"oom_kill 3\n",
    "cgroup/a/memory.current": b"7\n",
    "cgroup/a/memory.max": b"max\n",
    "cgroup/a/memory.stat": b"inactive_file 5\n",
    "cgroup/a/memory.events": b"oom_kill 1\n",
    "cgroup/memory/a/memory.usage_in_bytes": b"7\n",
    "cgroup/memory/a/memory.limit_in_bytes": b"9\n",
    "cgroup/memory/a/memory.oom_control": b"oom_kill 1\n",
}
PIECES = (
    *(b"max", b"-1", b"9" * 18, b"9" * 30, b"9" * 5_000),
    *(b"\0", b"\xff\xfe", b" ", b"\n", b":", b"kB", b"0"),
)


def damaged(chance: random.Random, content: bytes) -> bytes:
    """The content with a part cut out, put in or replaced."""
    at, length = chance.randrange(len(content) + 1), chance.randrange(8)
    piece = chance.choice([*PIECES, chance.randbytes(chance.randrange(40)), b""])
    return content[:at] + piece * chance.choice([1, 1, 1, 2_000]) + content[at + length :]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    for name, content in SOUND.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return made


def numbers(machine: Machine) -> Iterator[object]:
    """All that can be read of the machine."""
    yield from asdict(read_limits(41, machine.proc, machine.cgroup)).values()
    yield oom_kill_counter(41, machine.proc, machine.cgroup)()
    yield from read_host_usage(machine.proc) or ()
    yield from asdict(read_rlimits(41, machine.proc)).values()
    yield from asdict(read_shared(41, machine.proc)).values()
    yield read_start_ticks(41, machine.proc)
    for reading in (read_process(41, machine.proc), read_size(41, machine.proc)):
        yield from asdict(reading).values() if reading is not None else ()


@pytest.mark.parametrize("name", SOUND)
def test_a_damaged_file_raises_nothing_and_gives_no_strange_number(
    machine: Machine, name: str
) -> None:
    chance = random.Random(name)
    path = machine.proc.parent / name
    for _ in range(60):
        path.write_bytes(damaged(chance, damaged(chance, SOUND[name])))
        for number in numbers(machine):
            # OTLP carries 64 bits, and an exporter fails as a whole for one number of more.
            assert number is None or (isinstance(number, int) and 0 <= number < 2**63)


@pytest.mark.parametrize("name", SOUND)
def test_a_file_that_is_missing_or_a_directory_raises_nothing(machine: Machine, name: str) -> None:
    path = machine.proc.parent / name
    path.unlink()
    list(numbers(machine))
    path.mkdir()
    list(numbers(machine))


def test_a_start_is_read_behind_a_name_that_may_contain_anything(machine: Machine) -> None:
    fields = " ".join(map(str, range(3, 53)))
    (machine.proc / "41" / "stat").write_text(f"41 (a) S) 9 (b) {fields}")
    # The 22nd field, counted from 1 (proc_pid_stat(5)).
    assert read_start_ticks(41, machine.proc) == 22
    assert read_start_ticks(42, machine.proc) is None
