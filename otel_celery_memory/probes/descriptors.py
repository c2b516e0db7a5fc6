"""Descriptors with high numbers, and a write that never waits for a greenlet.

A task may close descriptors that it does not own (``os.closerange``, a double close) and open a
socket that gets the same number, since the kernel hands out the lowest free one. We would then
write into the task's socket. Under a high number that does not happen. Checking before each write
(``fstat``) would cost as much as the write.
"""

from __future__ import annotations

import os

try:
    import fcntl
    import resource

    # eventlet replaces os.write. Its own switches to another greenlet where this one fails with
    # EAGAIN, and raises where two of them write at once.
    from posix import write
except ImportError:  # Windows
    from os import write

    fcntl = None  # type: ignore[assignment]

__all__ = ["moved_high", "write"]

_LOWEST = 900
_MARGIN = 100
_ABOVE_STANDARD = 3


def moved_high(fd: int) -> int:
    """Move an open file to a high descriptor and close `fd`; where none is free, return `fd`."""
    if fcntl is None or not hasattr(fcntl, "F_DUPFD_CLOEXEC"):
        return fd
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = _LOWEST if soft == resource.RLIM_INFINITY else min(_LOWEST, soft - _MARGIN)
    if lowest < _MARGIN:
        # Few are allowed: at least stay above the standard streams, which a daemon may have closed.
        lowest = _ABOVE_STANDARD
    if fd >= lowest:
        return fd
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
    except OSError:
        return fd
    os.close(fd)
    return high
