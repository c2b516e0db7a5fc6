"""What a process has of which it may have ever more, and the kind of leak that this is."""

from __future__ import annotations

from enum import Enum

from otel_celery_memory.leaks.verdict import Kind


class Resource(str, Enum):
    """A level that is watched for growth: bytes, or a number of things."""

    HEAP = "heap"
    """What the allocators have in use, right after a collection of the young objects."""
    FLOOR = "floor"
    """The same right after a full collection: seldom, but no garbage is in it."""
    OTHER = "other"
    """Resident memory that no allocator accounts for."""
    MALLOC_FREE = "malloc_free"
    """What malloc keeps though it is free."""
    OPEN_FILES = "open_files"
    THREADS = "threads"
    COPIED = "copied"
    """Memory that was shared at the fork and is the process's own now."""
    DESCENDANTS = "descendants"
    """Resident memory of processes that tasks have started and left behind."""
    MAIN = "main"
    """Resident memory of the main process."""
    MESSAGES = "messages"
    """Messages that the main process holds."""


KINDS = {
    Resource.HEAP: Kind.PYTHON,
    Resource.FLOOR: Kind.PYTHON,
    Resource.OTHER: Kind.MAPPING,
    Resource.MALLOC_FREE: Kind.FRAGMENTATION,
    Resource.OPEN_FILES: Kind.FILE_DESCRIPTORS,
    Resource.THREADS: Kind.THREADS,
    Resource.COPIED: Kind.COPY_ON_WRITE,
    Resource.DESCENDANTS: Kind.PROCESSES,
    Resource.MAIN: Kind.PYTHON,
    Resource.MESSAGES: Kind.MESSAGES,
}
"""The kind of a leak by what grows, before more is known."""
