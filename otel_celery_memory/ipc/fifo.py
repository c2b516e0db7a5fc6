"""Where spawned children, which inherit no descriptors, meet their worker.

A private directory, named in the environment, has a FIFO and the control page. A child believes
the variable only where it names its own parent, and the directory only where it is its user's
alone.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "OTEL_CELERY_MEMORY_FIFO"


@dataclass(frozen=True)
class FifoDirectory:
    """The directory of one worker, its main process's pid, and ``worker_max_memory_per_child``."""

    directory: Path
    main_pid: int
    max_memory_kib: int

    @classmethod
    def create(cls, max_memory_kib: int) -> FifoDirectory:
        """A new directory with a FIFO; raises `OSError` where there is no place for it."""
        if not hasattr(os, "mkfifo"):
            raise OSError("this system has no FIFOs")
        directory = Path(tempfile.mkdtemp(prefix="otel-celery-memory-"))
        made = cls(directory, os.getpid(), max_memory_kib)
        try:
            os.mkfifo(made.pipe, 0o600)
        except OSError:
            made.remove()
            raise
        return made

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> FifoDirectory | None:
        """What the environment names; ``None`` where it names nothing of that form."""
        pid, _, rest = environ.get(VARIABLE, "").partition(":")
        kib, _, directory = rest.partition(":")
        digits = pid + kib
        if not (pid and kib and digits.isascii() and digits.isdigit() and len(digits) < 40):
            return None
        found = cls(Path(directory), int(pid), int(kib))
        return found if found.directory.is_absolute() else None

    @property
    def pipe(self) -> Path:
        """The FIFO."""
        return self.directory / "pipe"

    @property
    def page(self) -> Path:
        """The control page."""
        return self.directory / "page"

    def environ_value(self) -> str:
        """The variable's value."""
        return f"{self.main_pid}:{self.max_memory_kib}:{self.directory}"

    def is_private(self) -> bool:
        """Whether the directory is one, and nobody else's."""
        try:
            found = self.directory.lstat()
        except OSError:
            return False
        own = found.st_uid == os.geteuid() and not found.st_mode & 0o077
        return own and stat.S_ISDIR(found.st_mode)

    def remove(self) -> None:
        """Take away what `create` made; what somebody else put there stays."""
        if not self.is_private():
            return
        with contextlib.suppress(OSError):
            for path in (self.pipe, self.page):
                path.unlink(missing_ok=True)
            self.directory.rmdir()
