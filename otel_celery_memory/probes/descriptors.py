"""Descriptors where nobody else's will ever be, and a write that never waits for a greenlet.

A task may close descriptors it does not own (``os.closerange``, a double close) and open a socket
that gets the same number, since the kernel gives out the lowest one free. What we then wrote
would land there. Under a high number that does not happen; looking before each write (``fstat``)
would cost as much as the write.
"""

from __future__ import annotations

import os

try:
    import fcntl
    import resource

    # eventlet puts its own in the place of os.write: that one switches to other greenlets where
    # this one says EAGAIN, and raises where two of them write at once.
    from posix import write
except ImportError:  # Windows
    from os import write

    fcntl = None  # type: ignore[assignment]

__all__ = ["moved_high", "write"]

_LOWEST = 900
_MARGIN = 100
_ABOVE_STANDARD = 3


def moved_high(fd: int) -> int:
    """The same open file under a high number; `fd` itself is closed. Where none is free: `fd`."""
    if fcntl is None or not hasattr(fcntl, "F_DUPFD_CLOEXEC"):
        return fd
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = _LOWEST if soft == resource.RLIM_INFINITY else min(_LOWEST, soft - _MARGIN)
    if lowest < _MARGIN:
        # With few to go round, at least not where a daemon without standard streams has a hole.
        lowest = _ABOVE_STANDARD
    if fd >= lowest:
        return fd
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
    except OSError:
        return fd
    os.close(fd)
    return high
