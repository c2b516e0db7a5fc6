"""A memory cgroup of the tests' own below the one they run in, where the machine allows it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from otel_celery_memory.probes.limits import find_cgroup
from tests.processes import wait_until


@dataclass(frozen=True)
class MemoryCgroup:
    """A directory of the memory controller that is ours to limit."""

    directory: Path
    version: int

    def limit(self, limit_bytes: int) -> None:
        """The most that its processes may be charged; no swap besides where that can be said."""
        name = "memory.max" if self.version == 2 else "memory.limit_in_bytes"
        (self.directory / name).write_text(str(limit_bytes))
        swap = self.directory / ("memory.swap.max" if self.version == 2 else "memory.swappiness")
        if swap.exists():
            swap.write_text("0")

    def prefix(self, program: str) -> list[str]:
        """A command line that enters the cgroup and becomes the program."""
        script = f'echo $$ > "{self.directory}/cgroup.procs" && exec "$0" "$@"'
        return ["/bin/sh", "-c", script, program]


@contextmanager
def memory_cgroup() -> Iterator[MemoryCgroup | None]:
    """A cgroup until the context ends; ``None`` where none can be made."""
    own = find_cgroup(os.getpid())
    if own is None:
        yield None
        return
    directory = own.directories[0] / f"otel-celery-memory-{os.getpid()}-{time.monotonic_ns()}"
    try:
        directory.mkdir()
    except OSError:
        yield None
        return
    made = MemoryCgroup(directory, own.version)
    try:
        # In version 2 a cgroup with processes has no controllers for those below it.
        yield made if (directory / "cgroup.procs").exists() and _can_limit(made) else None
    finally:
        _remove(directory)


def _can_limit(cgroup: MemoryCgroup) -> bool:
    try:
        cgroup.limit(1 << 40)
    except OSError:
        return False
    return True


def _remove(directory: Path) -> None:
    """Once the last of its processes is gone."""

    def removed() -> bool:
        try:
            directory.rmdir()
        except OSError:
            return False
        return True

    wait_until("the cgroup is empty", removed, 10)
