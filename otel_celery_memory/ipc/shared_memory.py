"""Memory that processes share by its descriptor."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from typing import TypeVar

from otel_celery_memory.probes.descriptors import OwnedFile, find_marked, moved_high

_Page = TypeVar("_Page")
_never_closed: list[mmap.mmap] = []
"""Maps whose own descriptors tasks have taken: to close the map would close the task's file."""


def new_memory(name: str) -> int:
    """The descriptor of new memory that has no name in a file system; raises `OSError`."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def page_in(fd: int, size_bytes: int, make: Callable[[int], _Page], what: str) -> _Page:
    """The page that `make` maps in `size_bytes` zeroed bytes; errors call it ``what``.

    Raises `OSError` if there is not enough memory, after closing the descriptor.
    """
    try:
        os.ftruncate(fd, size_bytes)
        return make(fd)
    except (OSError, ValueError):
        os.close(fd)
        raise OSError(f"no memory for the {what}") from None


class SharedFile:
    """The descriptor of shared memory. A task may take it away, but not the map that it became.

    Python's map has a second descriptor, of its own, under a low number.
    """

    def __init__(self, fd: int, mark: int) -> None:
        """``mark`` is that of `descriptors` for this kind of memory; with ``fd`` -1 it has none."""
        self._mark = mark
        self._file = OwnedFile(fd, mark) if fd >= 0 else None

    @property
    def fd(self) -> int:
        """The descriptor, -1 if there is none.

        Raises `OSError` if tasks have taken both descriptors: the memory cannot be shared again.
        """
        if self._file is None:
            return -1
        if not self._file.is_ours():
            other = find_marked(self._mark)
            if other is None:
                raise OSError("a task has closed the descriptors of shared memory")
            self._file = OwnedFile(moved_high(os.dup(other)), self._mark)
        return self._file.fd

    def close(self, mapped: mmap.mmap) -> None:
        """Close the descriptor and the map."""
        if self._file is not None:
            self._file.close()
            if find_marked(self._mark) is None:
                _never_closed.append(mapped)
                return
        mapped.close()
