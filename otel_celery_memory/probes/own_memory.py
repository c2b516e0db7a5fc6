"""This process's own RSS and its peak, by the cheapest reads there are.

Cost on Linux: ``statm`` through a kept descriptor 1.5 us (psutil: 11 to 14), resetting the peak
0.6 us, reading it 0.9 us; 0.3 us more for each use of a descriptor, to know that it is still ours.

Each run waits for two reads and a reset. So they check the descriptor's mark and use it without
calling anything else of ours, and leave the rest to `_ProcFile`. A line that has not changed, as
most have not, is not parsed again.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Protocol

import psutil

from otel_celery_memory.probes.descriptors import (
    CLEAR_REFS,
    GET_MARK,
    STATM,
    STATUS,
    OwnedFile,
    moved_high,
    read_flag,
    write,
)

with contextlib.suppress(ImportError):  # Windows, where there is no /proc either
    from os import pread
    from resource import RUSAGE_SELF, getrusage


_FOREIGN_PEAK_BYTES = 4 << 20
_KEPT_TIMES = 100
"""So often a file is opened again and kept. Where tasks take it away each time, it is then opened
for each use (3 us)."""
_STATM_BYTES = 128
_STATUS_BYTES = 1 << 16
_PEAK = b"\nVmHWM:"
_NO_PEAK = "this platform has no peak that can be reset"


class ProcessProbe(Protocol):
    """What a task measurement reads of this process."""

    @property
    def resets_peak(self) -> bool:
        """Whether there is a peak of RSS that can be reset."""

    def rss_bytes(self) -> int:
        """RSS now, in bytes."""

    def reset_peak(self) -> bool:
        """Start a new peak; ``False`` where there is none that may be reset now."""

    def peak_bytes(self) -> int:
        """Highest RSS in bytes since `reset_peak`."""

    def close(self) -> None:
        """Close the probe's descriptors."""


PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class _ProcFile:
    """A file of ``/proc/self`` that is kept open, and opened anew if a task has taken it away."""

    def __init__(self, path: Path, flags: int, mark: int) -> None:
        """Raises `OSError` where it cannot be opened."""
        self._path = str(path)
        self._flags = flags | os.O_CLOEXEC
        self._mark = mark
        self._reopened = 0
        self._closed = False
        self.kept = self._open()
        """The descriptor, which is ours if it has the mark."""

    def read(self, size_bytes: int) -> bytes:
        """Its first bytes; raises `OSError` where it cannot be read."""
        kept = self.kept
        if kept.is_ours():
            return pread(kept.fd, size_bytes, 0)
        opened = self._open()
        try:
            return pread(opened.fd, size_bytes, 0)
        finally:
            self._keep(opened)

    def write(self, data: bytes) -> None:
        """Raises `OSError` where that is refused."""
        kept = self.kept
        if kept.is_ours():
            write(kept.fd, data)
            return
        opened = self._open()
        try:
            write(opened.fd, data)
        finally:
            self._keep(opened)

    def close(self) -> None:
        """Close it for good, unless the number is somebody else's by now."""
        self._closed = True
        self.kept.close()

    def _open(self) -> OwnedFile:
        if self._closed:
            raise OSError("the probe is closed")
        return OwnedFile(moved_high(os.open(self._path, self._flags)), self._mark)

    def _keep(self, opened: OwnedFile) -> None:
        self._reopened += 1
        if self._reopened <= _KEPT_TIMES:
            self.kept = opened
        else:
            opened.close()


class LinuxProcessProbe:
    """Reads ``/proc/self``. A probe belongs to one process: open another one after a fork.

    The peak is Linux's high-water mark: writing ``5`` to ``clear_refs`` resets it
    (proc_pid_clear_refs(5)). Other readers of ``ru_maxrss`` in the process see the reset too.
    billiard compares it with ``max_memory_per_child`` after each task. So a mark above that limit,
    which would recycle the process, is kept: it is reset only below.

    Raises `OSError`, `ValueError` or `IndexError` where ``statm`` cannot be opened or parsed.
    """

    def __init__(
        self, proc: Path = Path("/proc"), *, peaks: bool = True, kept_above_bytes: int = 0
    ) -> None:
        """A mark above ``kept_above_bytes`` is not reset (0: any is); without ``peaks`` none is."""
        self._kept_above_bytes = kept_above_bytes
        self._clear_refs: _ProcFile | None = None
        self._status: _ProcFile | None = None
        self._statm = _ProcFile(proc / "self" / "statm", os.O_RDONLY, STATM)
        self._last: tuple[bytes | None, int] = (None, 0)
        """The last line and the RSS in it; one value, as another thread may read, too."""
        try:
            if not 0 <= self.rss_bytes() < 2**63:
                raise ValueError("no size")
        except (OSError, ValueError, IndexError):
            self.close()
            raise
        if not peaks:
            return
        # /proc may be read-only, or the kernel built without it: there is RSS then, but no peak.
        with contextlib.suppress(OSError):
            self._clear_refs = _ProcFile(proc / "self" / "clear_refs", os.O_WRONLY, CLEAR_REFS)
        try:
            self._open_status_if_needed(proc)
        except (OSError, ValueError, IndexError):
            # Another process's peak would be worse than none.
            self._close_peak()

    @property
    def resets_peak(self) -> bool:
        return self._clear_refs is not None

    def rss_bytes(self) -> int:
        fd, line = self._statm.kept.fd, b""
        try:
            if read_flag(fd, GET_MARK) == STATM:
                line = pread(fd, _STATM_BYTES, 0)
        except (OSError, ValueError):
            pass  # a task has closed it
        if not line:
            line = self._statm.read(_STATM_BYTES)
        last_line, rss_bytes = self._last
        if line != last_line:
            rss_bytes = int(line.split(b" ", 2)[1]) * PAGE_BYTES
            self._last = line, rss_bytes
        return rss_bytes

    def reset_peak(self) -> bool:
        clear_refs = self._clear_refs
        if clear_refs is None or 0 < self._kept_above_bytes < self.peak_bytes():
            return False
        fd = clear_refs.kept.fd
        try:
            if read_flag(fd, GET_MARK) == CLEAR_REFS:
                write(fd, b"5")
                return True
        except (OSError, ValueError):
            pass  # a task has closed it
        clear_refs.write(b"5")
        return True

    def peak_bytes(self) -> int:
        if self._status is not None:
            return self._high_water_bytes(self._status)
        return getrusage(RUSAGE_SELF).ru_maxrss * 1024

    def _open_status_if_needed(self, proc: Path) -> None:
        """Read the peak from ``status`` (10 us) where ``ru_maxrss`` is another process's.

        After exec it keeps the peak of the process that started this one, and no reset clears it.
        """
        self.reset_peak()
        if self.peak_bytes() > self.rss_bytes() + _FOREIGN_PEAK_BYTES:
            self._status = _ProcFile(proc / "self" / "status", os.O_RDONLY, STATUS)
            if not 0 <= self._high_water_bytes(self._status) < 2**63:
                raise ValueError("no size")

    @staticmethod
    def _high_water_bytes(status: _ProcFile) -> int:
        # It comes after the name, in which only newlines are escaped, and the groups, perhaps many.
        text = status.read(_STATUS_BYTES)
        at = text.index(_PEAK) + len(_PEAK)
        return int(text[at : text.index(b"kB", at)]) * 1024

    def close(self) -> None:
        self._statm.close()
        self._close_peak()

    def _close_peak(self) -> None:
        for file in (self._clear_refs, self._status):
            if file is not None:
                file.close()
        self._clear_refs = self._status = None


class PsutilProcessProbe:
    """RSS by psutil, for systems without ``/proc``. Their peak cannot be reset."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    @property
    def resets_peak(self) -> bool:
        return False

    def rss_bytes(self) -> int:
        return int(self._process.memory_info().rss)

    def reset_peak(self) -> bool:
        return False

    def peak_bytes(self) -> int:
        raise OSError(_NO_PEAK)

    def close(self) -> None:
        """Do nothing: no descriptor is open."""


def open_process_probe(
    proc: Path = Path("/proc"), *, peaks: bool = True, kept_above_bytes: int = 0
) -> ProcessProbe:
    """The cheapest probe that works in this process; as `LinuxProcessProbe` has it."""
    try:
        return LinuxProcessProbe(proc, peaks=peaks, kept_above_bytes=kept_above_bytes)
    except (OSError, ValueError, IndexError):
        return PsutilProcessProbe()
