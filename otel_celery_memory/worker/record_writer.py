"""Writes records into the ring of this process, without waiting, or drops and counts them.

A frame that is in the ring is safe, even if the process is killed the next moment. The memory is
the main process's too, so frames wait for a reporter that is started again.

A ring has one writing process. A process of the pool has the ring of its slot, as long as it lives.
A fork that a task makes must not use its parent's ring; if it goes on in our code it takes a ring
for guests with its first record, and so does a child whose slot has none. Where there is none
left, records are dropped and counted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import RLock
from typing import Protocol

from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.ipc.codec import FINISHED, KIND_AT, Layout, fields_of, frame_of
from otel_celery_memory.ipc.control_page import SLOTS, ControlPage
from otel_celery_memory.ipc.journal import JournalMemory
from otel_celery_memory.ipc.records import MAIN_SLOT, Record
from otel_celery_memory.ipc.ring import SLOT_RINGS, RingMemory, RingWriter
from otel_celery_memory.ipc.status_page import StatusPage
from otel_celery_memory.probes.descriptors import moved_high

try:
    import fcntl
except ImportError:  # Windows, where Celery has no prefork either
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_LOCK_ATTEMPTS = 100
_PID_NAMESPACE = Path("/proc/self/ns/pid")


class RecordSink(Protocol):
    """Takes records. It must not raise, and must not wait."""

    def send(self, record: Record) -> bool:
        """Pass a record on; ``False`` where it was dropped and counted."""


class RecordWriter:
    """The rings and pages of one worker, as one of its processes uses them."""

    def __init__(
        self,
        children: int = 0,
        page: ControlPage | None = None,
        rings: RingMemory | None = None,
        slot: int = MAIN_SLOT,
    ) -> None:
        """Make memory for a pool of so many children, or use given memory, for this slot.

        Raises `OSError` where there is none.
        """
        with contextlib.ExitStack() as made:
            self.page = page or ControlPage.create(moved_high)
            made.callback(self.page.close)
            self.rings = rings or RingMemory.create(children, moved_high)
            made.callback(self.rings.close)
            self.status = StatusPage.create(moved_high)
            made.callback(self.status.close)
            self._journal = JournalMemory(moved_high)
            made.callback(self._journal.close)
            self._counting = RLock()
            self._pid_namespace = _pid_namespace()
            self._ring: _Ring = _NO_RING
            self._parents: _Ring | None = None
            self.attach(slot)
            if self._ring is _NO_RING:
                raise OSError("no memory for a ring")
            self._memory = made.pop_all()
        self._closed = False
        _writers.add(self)

    def attach(self, slot: int) -> None:
        """This process has the slot from now on; must be called by each process of the pool."""
        self.slot = self._counted_as = slot
        parents, self._parents = self._parents, None
        if parents is not None:
            parents.close()
        index = slot + 1
        if not 0 <= index < SLOT_RINGS:
            self._ring = _FirstUse(self._take_guest_ring)
            return
        self._ring = self._open(index)

    def send(self, record: Record) -> bool:
        """Write the frame of a record, without waiting or raising; whether there was room."""
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
        """Write one frame, without waiting or raising; whether there was room."""
        try:
            self._ring.append(frame)
        except ValueError:  # the block is full
            if not self._ring.write(frame):
                self._count_dropped(frame[KIND_AT] == FINISHED.kind)
                return False
        return True

    def forked(self) -> None:
        """This process is a fork: it must not write into its parent's ring."""
        if not self._closed:
            self._counted_as = SLOTS
            self._counting = RLock()  # another thread may have held it
            # Kept, as a task may have taken the descriptors of its maps.
            self._parents = self._ring
            self._ring = _FirstUse(self._take_guest_ring)

    def descriptors(self) -> tuple[int, int, int, int]:
        """What a reporter is given: rings, control page, status page and journal.

        Raises `OSError` where tasks have taken them away.
        """
        return self.rings.fd, self.page.fd, self.status.fd, self._journal.fd

    def close(self) -> None:
        """Close everything; nothing is sent from then on."""
        if self._closed:
            return
        self._closed = True
        ring, self._ring = self._ring, _NO_RING
        ring.close()
        with contextlib.suppress(OSError):
            self._memory.close()

    def _count_dropped(self, task_end: bool) -> None:
        try:
            if not self._closed:
                with self._counting:
                    self.page.drop_counters.count(self._counted_as, task_end=task_end)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            return  # the page is closed

    def _open(self, index: int) -> _Ring:
        try:
            ring = RingWriter(self.rings.map_blocks(index))
        except OSError as error:
            logger.warning("otel_celery_memory: no ring, records are dropped: %s", error)
            return _NO_RING
        self.page.use_ring(index)
        return ring

    def _take_guest_ring(self) -> _Ring:
        self._ring = _NO_RING
        index = self._claim_guest_ring()
        if index is not None:
            self._ring = self._open(index)
        return self._ring

    def _claim_guest_ring(self) -> int | None:
        # Elsewhere pids mean other processes.
        if self._pid_namespace is None or _pid_namespace() != self._pid_namespace:
            return None
        try:
            fd = self.rings.open_again()
        except OSError:
            return None
        try:
            if not _locked(fd):
                return None
            for number, pid in enumerate(self.page.guests()):
                if not _is_alive(pid):
                    self.page.set_guest(number, os.getpid())
                    return SLOT_RINGS + number
            return None
        finally:
            os.close(fd)  # and the lock is gone


class _Ring(Protocol):
    @property
    def append(self) -> Callable[[bytes], int]: ...

    def write(self, frame: bytes) -> bool: ...

    def close(self) -> None: ...


class _NoRing:
    """Stands for a ring where there is none."""

    def append(self, _frame: bytes, /) -> int:
        raise ValueError

    def write(self, frame: bytes) -> bool:
        return False

    def close(self) -> None:
        return


class _FirstUse(_NoRing):
    """Stands for a ring that is taken when the first frame is written."""

    def __init__(self, take: Callable[[], _Ring]) -> None:
        self._take = take

    def write(self, frame: bytes) -> bool:
        return self._take().write(frame)


_NO_RING = _NoRing()
_writers: weakref.WeakSet[RecordWriter] = weakref.WeakSet()


def _forked() -> None:
    for writer in list(_writers):
        writer.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _pid_namespace() -> int | None:
    try:
        return _PID_NAMESPACE.stat().st_ino
    except OSError:
        return None


def _locked(fd: int) -> bool:
    """Whether no other process holds the lock, which each holds for microseconds."""
    for _ in range(_LOCK_ATTEMPTS):
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        except OSError:
            continue
        return True
    return False


def _is_alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
