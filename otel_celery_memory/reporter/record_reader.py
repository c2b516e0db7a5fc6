"""The reporter's end of the pipe: bytes in, records out, and how far they have been taken in.

All that is read is kept in the journal until an endpoint has what was told of it. While records
are applied nobody collects, so that a collection lies between two records.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock

from otel_celery_memory.ipc.codec import FrameDecoder
from otel_celery_memory.ipc.journal import Journal
from otel_celery_memory.ipc.records import Record


class Intake:
    """Read by the reporter's loop; marked and released by who exports."""

    def __init__(self, pipe_fd: int, decoder: FrameDecoder, journal: Journal) -> None:
        self.fd = pipe_fd
        self.applying = Lock()
        """Held while records are applied, and while metrics are collected."""
        self._decoder = decoder
        self._journal = journal

    def read(self) -> tuple[int, list[Record]]:
        """How many bytes there were, 0 at the end, and the records that are complete with them.

        Raises `BlockingIOError` where there are none now.
        """
        data = self._journal.read(self.fd)
        return len(data), self._decoder.feed(data) if data else self._decoder.finish()

    def left_behind(self) -> Iterator[Record]:
        """What the reporter before this one had read, and told nobody who took it."""
        for record in self._decoder.feed(self._journal.left()):
            # A capture is complete once; its parts are no part of any metric.
            if not getattr(record, "capture", 0):
                yield record

    def mark(self) -> int:
        """How far all that was read has been applied."""
        return self._journal.read_to - self._decoder.incomplete_bytes

    def taken(self, mark: int) -> None:
        """An endpoint has what was told of all up to this mark."""
        self._journal.taken(mark)

    def bad_frames(self) -> int:
        """Frames that could not be read, since this was last asked."""
        found, self._decoder.bad_frames = self._decoder.bad_frames, 0
        return found
