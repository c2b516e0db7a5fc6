"""A frozen machine whose every file is in order, and all that can be read of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from otel_celery_memory.probes.limits import oom_kill_counter, read_host_usage, read_limits
from otel_celery_memory.probes.procfs import (
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


def sound_machine(root: Path) -> Machine:
    """The machine below a directory, with process 41 in cgroups of both versions."""
    made = Machine(root)
    for name, content in SOUND.items():
        path = root / name
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
