"""Memory that processes share by its descriptor."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import TypeVar

_Page = TypeVar("_Page")


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
