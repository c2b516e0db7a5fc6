"""The pipe to the reporter: a frame is written without waiting, or dropped and counted.

A frame that `os.write` took is safe in the kernel, even if the writer is killed the next moment.
The main process keeps the read end. So frames wait for a reporter that is started again, and no
write fails because there is no reader.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Protocol

from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.ipc.codec import FINISHED, KIND_AT, Layout, fields_of, frame_of
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.journal import create_journal
from otel_celery_memory.ipc.records import MAIN_SLOT, Record
from otel_celery_memory.ipc.status_page import StatusPage
from otel_celery_memory.probes.descriptors import (
    JOURNAL,
    PIPE_IN,
    PIPE_OUT,
    OwnedFile,
    moved_high,
    write,
)

try:
    import fcntl
except ImportError:  # Windows, where Celery has no prefork either
    fcntl = None  # type: ignore[assignment]

_REOPEN_LIMIT = 100
_PIPE_BYTES = (1 << 20, 1 << 18, 1 << 17)
"""Sizes to try. Linux allows 1 MiB without privileges by default (pipe(7))."""


class RecordSink(Protocol):
    """Takes records. It must not raise, and must not wait."""

    def send(self, record: Record) -> bool:
        """Pass a record on; ``False`` where it was dropped and counted."""


class PipeWriter:
    """Both ends of the pipe, and the pages. The pool's children inherit it."""

    def __init__(
        self,
        ends: tuple[int, int] | None = None,
        page: ControlPage | None = None,
        path: str | None = None,
    ) -> None:
        """Make a pipe and a control page, or use given ones.

        ``ends``: descriptors to read (-1 for none) and to write. ``path``: where the pipe can be
        opened again. Raises `OSError` where no pipe or page can be made.
        """
        read_fd, write_fd = ends or os.pipe()
        self.read_fd = moved_high(read_fd) if read_fd >= 0 else -1
        self.write_fd = moved_high(write_fd)
        self._read_end: OwnedFile | None = None
        self._path = path or f"/proc/{os.getpid()}/fd/{self.write_fd}"
        self._inode = os.fstat(self.write_fd).st_ino
        self._reopened = 0
        try:
            self.page = page or ControlPage.create(moved_high)
            self.status = StatusPage.create(moved_high)
            self._journal = OwnedFile(create_journal(moved_high), JOURNAL)
        except OSError:
            os.close(self.read_fd)
            os.close(self.write_fd)
            raise
        os.set_blocking(self.write_fd, False)
        self._write_end = OwnedFile(self.write_fd, PIPE_IN)
        if self.read_fd >= 0:
            os.set_blocking(self.read_fd, False)
            self._read_end = OwnedFile(self.read_fd, PIPE_OUT)
        self.slot = MAIN_SLOT
        self._closed = False
        self._enlarge()

    def send(self, record: Record) -> bool:
        """Write the frame of a record, without waiting or raising; whether the pipe took it."""
        return self.send_fields(*fields_of(record))

    def send_fields(
        self, layout: Layout, numbers: Sequence[int | bytes], strings: tuple[str, ...]
    ) -> bool:
        """`send` for a record that need not be made: what `frame_of` takes."""
        try:
            frame = frame_of(layout, numbers, strings)
        except SoftTimeLimitExceeded:
            raise  # the task's time limit, which happened to hit us
        except Exception:
            self._count_dropped(layout is FINISHED)
            return False
        return self.send_frame(frame)

    def send_frame(self, frame: bytes) -> bool:
        """Write one frame, without waiting or raising; whether the pipe took it."""
        if self._closed:
            return False
        try:
            # A task may have closed our descriptor (os.closerange), and the number may belong to a
            # file of its own by now.
            if not self._write_end.is_ours():
                self._reopen()
            write(self._write_end.fd, frame)
        except SoftTimeLimitExceeded:
            raise  # the task's time limit, which happened to hit us
        except Exception:  # full or closed: no concern of the task's
            self._count_dropped(frame[KIND_AT] == FINISHED.kind)
            return False
        return True

    def _count_dropped(self, task_end: bool) -> None:
        try:
            self.page.drop_counters.count(self.slot, task_end=task_end)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            return  # the page is closed

    def _reopen(self) -> None:
        """Open the pipe again by the main process's descriptor; raises `OSError` if that fails."""
        if self._reopened >= _REOPEN_LIMIT:
            raise OSError("tasks have closed the pipe too often")
        self._reopened += 1
        fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if os.fstat(fd).st_ino != self._inode:
            os.close(fd)
            raise OSError("the main process's pipe is not there any more")
        self._write_end = OwnedFile(moved_high(fd), PIPE_IN)
        self.write_fd = self._write_end.fd

    def descriptors(self) -> tuple[int, int, int, int]:
        """What a reporter is given: the read end, control page, status page and journal.

        Those that tasks have taken away are opened again; raises `OSError` where that cannot be.
        """
        if self._read_end is not None and not self._read_end.is_ours():
            path = f"/proc/self/fd/{self.write_fd}"
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if os.fstat(fd).st_ino != self._inode:
                os.close(fd)
                raise OSError("a task has closed both ends of the pipe")
            self._read_end = OwnedFile(moved_high(fd), PIPE_OUT)
            self.read_fd = self._read_end.fd
        if not self._journal.is_ours():
            # What a killed reporter had read and not exported is lost with it.
            self._journal = OwnedFile(create_journal(moved_high), JOURNAL)
        return self.read_fd, self.page.fd, self.status.fd, self._journal.fd

    def close_read_end(self) -> None:
        """Close the read end; pool children do, the main process keeps it."""
        if self._read_end is not None:
            self._read_end.close()
        self._read_end = None
        self.read_fd = -1

    def close(self) -> None:
        """Close everything; nothing is sent from then on."""
        if self._closed:
            return
        self._closed = True
        self.close_read_end()
        self._write_end.close()
        with contextlib.suppress(OSError):
            self.page.close()
        with contextlib.suppress(OSError):
            self.status.close()
        self._journal.close()

    def _enlarge(self) -> None:
        if not hasattr(fcntl, "F_SETPIPE_SZ"):
            return
        for size in _PIPE_BYTES:
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.write_fd, fcntl.F_SETPIPE_SZ, size)
                return
