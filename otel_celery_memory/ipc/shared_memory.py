"""Memory that a worker's processes and its reporter share: by descriptor, or by name.

Memory without a name is inherited by its descriptor. Spawned children inherit none: a private
directory, named in the environment, contains the files that they map. A child uses the variable
only if it names the child's parent process, and the directory only if it belongs to the child's
user and nobody else can access it.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from otel_celery_memory.probes.allocators import c_function
from otel_celery_memory.probes.descriptors import OwnedFile, spare_of

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_Page = TypeVar("_Page")
VARIABLE = "OTEL_CELERY_MEMORY_DIRECTORY"


def new_memory(name: str) -> int:
    """The descriptor of new memory that has no name in a file system; raises `OSError`."""
    with contextlib.suppress(OSError, AttributeError):  # refused (seccomp), or another system
        return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, 0)


def keep_size(fd: int) -> None:
    """Forbids to change the size: a process dies where it touches what was cut off."""
    with contextlib.suppress(OSError, AttributeError):  # files in a file system cannot be sealed
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)


def is_file(fd: int) -> bool:
    """Whether the memory is a file of a file system, which may be full."""
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except (OSError, AttributeError):
        return True
    return False


def page_in(fd: int, size_bytes: int, make: Callable[[int], _Page], what: str) -> _Page:
    """The page that `make` maps in `size_bytes` zeroed bytes; errors call it ``what``.

    Raises `OSError` if there is not enough memory, after closing the descriptor.
    """
    try:
        os.ftruncate(fd, size_bytes)
        keep_size(fd)
        return make(fd)
    except (OSError, ValueError):
        os.close(fd)
        raise OSError(f"no memory for the {what}") from None


def mapped(fd: int, size_bytes: int, offset_bytes: int = 0) -> mmap.mmap:
    """Maps shared memory, or with ``fd`` -1 memory of this process and its forks.

    Python's own map of a file keeps a second descriptor, under the lowest free number: a task could
    tell, and would have its file closed with the map if it took that number. So the file is mapped
    over a map that has none. Raises `OSError` or `ValueError`.
    """
    if fd < 0 or _map is None:
        return mmap.mmap(fd, size_bytes, offset=offset_bytes)
    if os.fstat(fd).st_size < offset_bytes + size_bytes:
        # A process dies where it touches what is behind the end.
        raise ValueError("the map is greater than the file")
    found = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    at = ctypes.addressof(ctypes.c_char.from_buffer(found))
    flags = mmap.MAP_SHARED | _MAP_FIXED
    if _map(at, size_bytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, offset_bytes) != at:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return found


_MAP_FIXED = 0x10
_map: Callable[..., int | None] | None = None
# Where a long has 32 bits, libraries differ in how large an offset is.
if sys.platform.startswith("linux") and ctypes.sizeof(ctypes.c_long) == 8:
    _map = c_function(
        *("mmap", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t),
        *(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long),
    )


class SharedFile:
    """The descriptor of shared memory, and a spare one: a task may take one of them away.

    They are far from each other, as a task closes ranges.
    """

    def __init__(self, fd: int, mark: int) -> None:
        """``mark`` is that of `descriptors` for this kind of memory; with ``fd`` -1 it has none."""
        self._mark = mark
        self._files = [OwnedFile(fd, mark)] if fd >= 0 else []
        self._add_spare()

    @property
    def fd(self) -> int:
        """The descriptor, -1 if there is none.

        Raises `OSError` if tasks have taken both descriptors: the memory cannot be shared again.
        """
        if not self._files:
            return -1
        ours = [file for file in self._files if file.is_ours()]
        if not ours:
            raise OSError("a task has closed the descriptors of shared memory")
        if len(ours) < 2:
            self._files = ours
            self._add_spare()
        return ours[0].fd

    def close(self) -> None:
        """Close the descriptors that are still ours."""
        for file in self._files:
            file.close()

    def _add_spare(self) -> None:
        if self._files:
            with contextlib.suppress(OSError):
                self._files.append(OwnedFile(spare_of(self._files[0].fd), self._mark))


@dataclass(frozen=True)
class SpawnDirectory:
    """The directory of one worker, its main process's pid, and ``worker_max_memory_per_child``."""

    directory: Path
    main_pid: int
    max_memory_kib: int

    @classmethod
    def create(cls, max_memory_kib: int) -> SpawnDirectory:
        """A new, empty directory; raises `OSError` if it cannot be created."""
        directory = Path(tempfile.mkdtemp(prefix="otel-celery-memory-"))
        return cls(directory, os.getpid(), max_memory_kib)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> SpawnDirectory | None:
        """The directory that `VARIABLE` names; ``None`` if it is missing or malformed."""
        pid, _, rest = environ.get(VARIABLE, "").partition(":")
        kib, _, directory = rest.partition(":")
        digits = pid + kib
        if not (pid and kib and digits.isascii() and digits.isdigit() and len(digits) < 40):
            return None
        found = cls(Path(directory), int(pid), int(kib))
        return found if found.directory.is_absolute() else None

    @property
    def rings(self) -> Path:
        """Path of the rings."""
        return self.directory / "rings"

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
            for path in (self.rings, self.page):
                path.unlink(missing_ok=True)
            self.directory.rmdir()
