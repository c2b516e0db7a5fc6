"""Descriptors that stay ours: high numbers, a mark on each open file, a write that never waits.

A task may close descriptors that it does not own (``os.closerange``, a double close, ``dup2``) and
open a file that gets the same number. We would then read, write or close the task's file. A high
number makes that rare, but the kernel hands out the lowest free number, so after some 900 opened
files it is not out of reach. So the open file itself is marked, and the mark is read before every
use.

The mark is the number of the signal for asynchronous I/O (``F_SETSIG``), which belongs to the open
file and not to the number. It has no effect unless somebody also asks for such signals
(``O_ASYNC``). Reading it takes 0.25 us; ``fstat`` 1.7 us. Where there are no marks, device and
inode are compared.
"""

from __future__ import annotations

import contextlib
import os

try:
    import fcntl
    import resource

    # eventlet replaces os.write. Its own switches to another greenlet where this one fails with
    # EAGAIN, and raises where two of them write at once.
    from posix import write

    read_flag = fcntl.fcntl
except ImportError:  # Windows
    from os import write

    fcntl = read_flag = None  # type: ignore[assignment]

__all__ = ["GET_MARK", "OwnedFile", "moved_high", "read_flag", "spare_of", "write"]

_LOWEST = 900
_MARGIN = 100
_ABOVE_STANDARD = 3
_F_SETSIG = getattr(fcntl, "F_SETSIG", -1)  # refused where there is none; 0 would be F_DUPFD
GET_MARK = getattr(fcntl, "F_GETSIG", -1)
"""``read_flag(fd, GET_MARK)`` is the mark of an open file. If it is one of ours, so is the file; if
it is not, ask `OwnedFile.is_ours`: there may be no marks."""

(
    STATM,
    CLEAR_REFS,
    STATUS,
    RINGS,
    CONTROL_PAGE,
    STATUS_PAGE,
    JOURNAL,
) = range(63, 56, -1)
"""A mark for each of our files: one of ours must not be taken for another one either. Real-time
signals from the upper end, which nobody uses by default."""


class OwnedFile:
    """A descriptor of ours that a task may have closed or replaced at any moment.

    Call `is_ours` before each use. A descriptor that is not ours any more is never closed by us.
    """

    __slots__ = ("_identity", "_mark", "fd")

    def __init__(self, fd: int, mark: int) -> None:
        """Take over an open descriptor, and mark its open file (of all who share it)."""
        self.fd = fd
        self._mark = mark
        self._identity: tuple[int, int] | None = None
        try:
            fcntl.fcntl(fd, _F_SETSIG, mark)
            marked = fcntl.fcntl(fd, GET_MARK) == mark
        except (OSError, AttributeError):
            marked = False
        if not marked:
            self._identity = _identity(fd)

    def is_ours(self) -> bool:
        """Whether the number still belongs to the file that we opened."""
        try:
            if self._identity is None:
                return read_flag(self.fd, GET_MARK) == self._mark
            return _identity(self.fd) == self._identity
        except (OSError, ValueError):  # closed, or -1
            return False

    def close(self) -> None:
        """Close it if it is ours, once."""
        if self.fd >= 0 and self.is_ours():
            with contextlib.suppress(OSError):
                os.close(self.fd)
        self.fd = -1


def moved_high(fd: int) -> int:
    """Move an open file to a high descriptor and close `fd`; where none is free, return `fd`."""
    if fcntl is None or fd >= _lowest(_LOWEST):
        return fd
    try:
        high = _another(fd, _LOWEST)
    except OSError:
        return fd
    os.close(fd)
    return high


def spare_of(fd: int) -> int:
    """A second descriptor of an open file, far from the first; raises `OSError`."""
    if fcntl is None:
        return os.dup(fd)
    middle = _lowest(_LOWEST) // 3
    return _another(fd, _LOWEST if fd < _lowest(_LOWEST) else max(middle, _ABOVE_STANDARD))


def _another(fd: int, wanted: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _lowest(wanted))


def _lowest(wanted: int) -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft - _MARGIN)
    # Where few are allowed: at least above the standard streams, which a daemon may have closed.
    return lowest if lowest >= _MARGIN else _ABOVE_STANDARD


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino
