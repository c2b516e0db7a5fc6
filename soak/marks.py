"""Marks that tasks write, independent of the measurement: one line at start and one at end.

A line is written with one call to a file opened for appending, so the lines of many processes
never mix (open(2), ``O_APPEND``), and what was written outlives its process.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

START, END = "S", "E"


@dataclass(frozen=True)
class Mark:
    """A task's body begins or ends."""

    kind: str
    task_id: str
    pid: int
    time_ns: int


def write_mark(fd: int, kind: str, task_id: str) -> None:
    """Append one mark of this process."""
    os.write(fd, f"{kind} {task_id} {os.getpid()} {time.time_ns()}\n".encode())


@dataclass
class Marks:
    """Reads the file as it grows."""

    path: Path
    started: dict[str, Mark] = field(default_factory=dict)
    ended: dict[str, Mark] = field(default_factory=dict)
    last_of: dict[int, Mark] = field(default_factory=dict)
    """The last mark of each process, by pid."""
    starts: int = 0
    """Bodies begun: more than ``started`` has entries if a task ran twice."""
    _offset: int = 0

    def read(self) -> None:
        """Reads what was written since the last call."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.decode("ascii").splitlines():
            kind, task_id, pid, time_ns = line.split()
            mark = Mark(kind, task_id, int(pid), int(time_ns))
            (self.started if kind == START else self.ended)[task_id] = mark
            self.starts += kind == START
            self.last_of[mark.pid] = mark
