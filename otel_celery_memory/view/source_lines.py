"""Lines of source around a place, read on this machine from files that a worker named.

A sender of telemetry could name any file. So only Python source is read, only what an event named,
and only the few lines around the place that it named.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

AROUND = 4
"""Lines before and after the place."""
FILE_BYTES_MAX = 4 << 20
LINE_MAX = 200
_CACHED_MAX = 200
_SUFFIX = ".py"
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True)
class Source:
    """Some lines of a file; ``first`` is the number of the first one."""

    first: int
    lines: tuple[str, ...]


class SourceLines:
    """Reads lines, and keeps them while their file stays as it is."""

    def __init__(self, was_named: Callable[[str], bool]) -> None:
        self._was_named = was_named
        self._cached: dict[tuple[str, int], tuple[tuple[int, int], Source | None]] = {}

    def around(self, path: str, line: int) -> Source | None:
        """The lines around a place; ``None`` where they cannot or must not be read."""
        if line < 1 or not Path(path).is_absolute() or not self._was_named(path):
            return None
        try:
            resolved = Path(path).resolve()
            if resolved.suffix != _SUFFIX:
                return None
            state = resolved.stat()
            if not stat.S_ISREG(state.st_mode) or state.st_size > FILE_BYTES_MAX:
                return None
            version = (state.st_mtime_ns, state.st_size)
            cached = self._cached.get((path, line))
            if cached is None or cached[0] != version:
                cached = (version, _read(resolved, line))
                self._keep((path, line), cached)
            return cached[1]
        except (OSError, ValueError):
            return None

    def _keep(self, key: tuple[str, int], value: tuple[tuple[int, int], Source | None]) -> None:
        self._cached.pop(key, None)
        self._cached[key] = value
        while len(self._cached) > _CACHED_MAX:
            del self._cached[next(iter(self._cached))]


def _read(path: Path, line: int) -> Source | None:
    # The file may have been replaced since it was looked at: what is opened decides.
    descriptor = os.open(path, _OPEN | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        text = file.read(FILE_BYTES_MAX).decode(errors="replace")
    # As the interpreter counts: not splitlines(), which also ends lines at form feeds.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if line > len(lines):
        return None
    first = max(line - AROUND, 1)
    return Source(first, tuple(each[:LINE_MAX] for each in lines[first - 1 : line + AROUND]))
