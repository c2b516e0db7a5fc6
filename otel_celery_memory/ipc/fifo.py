"""How spawned children, which inherit no descriptors, find their worker.

A private directory, named in the environment, contains a FIFO and the control page. A child uses
the variable only if it names the child's parent process, and the directory only if it belongs to
the child's user and nobody else can access it.
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
        """A new directory with a FIFO; raises `OSError` if either cannot be created."""
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
        """The directory that `VARIABLE` names; ``None`` if it is missing or malformed."""
        pid, _, rest = environ.get(VARIABLE, "").partition(":")
        kib, _, directory = rest.partition(":")
        digits = pid + kib
        if not (pid and kib and digits.isascii() and digits.isdigit() and len(digits) < 40):
            return None
        found = cls(Path(directory), int(pid), int(kib))
        return found if found.directory.is_absolute() else None

    @property
    def pipe(self) -> Path:
        """Path of the FIFO."""
        return self.directory / "pipe"

    @property
    def page(self) -> Path:
        """Path of the control page."""
        return self.directory / "page"

    def environ_value(self) -> str:
        """The value of `VARIABLE`."""
        return f"{self.main_pid}:{self.max_memory_kib}:{self.directory}"

    def is_private(self) -> bool:
        """Whether it is a directory of this user that nobody else can access."""
        try:
            found = self.directory.lstat()
        except OSError:
            return False
        own = found.st_uid == os.geteuid() and not found.st_mode & 0o077
        return own and stat.S_ISDIR(found.st_mode)

    def remove(self) -> None:
        """Removes what `create` made; other files in the directory stay."""
        if not self.is_private():
            return
        with contextlib.suppress(OSError):
            for path in (self.pipe, self.page):
                path.unlink(missing_ok=True)
            self.directory.rmdir()
