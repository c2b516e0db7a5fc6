"""The pipe to the reporter: frames go in without waiting, or are dropped and counted.

What `os.write` took is safe in the kernel: the writer may be killed the next moment. The main
process keeps the read end, so that frames wait for a reporter that is started again, and writing
never fails for want of a reader.
"""

from __future__ import annotations

import contextlib
import os

from otel_celery_memory.page import ControlPage
from otel_celery_memory.probes.descriptor import moved_high, write
from otel_celery_memory.records import MAIN_SLOT, Record
from otel_celery_memory.wire import encode

try:
    import fcntl
except ImportError:  # Windows, where Celery has no prefork either
    fcntl = None  # type: ignore[assignment]

_PIPE_BYTES = (1 << 20, 1 << 18, 1 << 17)
"""Sizes to ask for: 1 MiB is Linux's default limit for the unprivileged (pipe(7))."""


class Channel:
    """Both ends of the pipe and the control page; inherited by the children of the pool."""

    def __init__(self) -> None:
        """Raises `OSError` where no pipe can be made."""
        self.read_fd, write_fd = os.pipe()
        self.write_fd = moved_high(write_fd)
        try:
            self.page = ControlPage.create()
        except OSError:
            os.close(self.read_fd)
            os.close(self.write_fd)
            raise
        os.set_blocking(self.write_fd, False)
        os.set_blocking(self.read_fd, False)
        self.slot = MAIN_SLOT
        self._closed = False
        self._enlarge()

    def send(self, record: Record) -> None:
        """Write one frame; never waits, never raises."""
        if self._closed:
            return
        try:
            write(self.write_fd, encode(record))
        except Exception:  # full, closed, or a record that cannot be encoded: never the task's
            with contextlib.suppress(Exception):
                self.page.count_dropped(self.slot)

    def close_read_end(self) -> None:
        """For children of the pool: only the main process keeps it."""
        with contextlib.suppress(OSError):
            os.close(self.read_fd)
        self.read_fd = -1

    def close(self) -> None:
        """Close everything; `send` does nothing from then on."""
        if self._closed:
            return
        self._closed = True
        self.close_read_end()
        with contextlib.suppress(OSError):
            os.close(self.write_fd)
        with contextlib.suppress(OSError):
            self.page.close()

    def _enlarge(self) -> None:
        if not hasattr(fcntl, "F_SETPIPE_SZ"):
            return
        for size in _PIPE_BYTES:
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.write_fd, fcntl.F_SETPIPE_SZ, size)
                return
