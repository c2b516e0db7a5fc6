"""Small stand-ins for what a test must be able to steer: memory, tracing, clocks, threads."""

from __future__ import annotations

from otel_celery_memory.ipc.records import Record
from otel_celery_memory.worker.lifecycle.child_exits import ChildExits
from otel_celery_memory.worker.record_writer import RecordSink


class FakeMemory:
    """A process's RSS and its high-water mark, as a `ProcessProbe`."""

    def __init__(self, rss_bytes: int = 1_000, *, has_peak: bool = True) -> None:
        self.now_bytes = rss_bytes
        self.mark_bytes = rss_bytes
        self.has_peak = has_peak
        self.closed = False

    def use(self, rss_bytes: int) -> None:
        """RSS becomes this; the mark follows upwards."""
        self.now_bytes = rss_bytes
        self.mark_bytes = max(self.mark_bytes, rss_bytes)

    @property
    def resets_peak(self) -> bool:
        return self.has_peak

    def rss_bytes(self) -> int:
        return self.now_bytes

    def reset_peak(self) -> bool:
        if self.has_peak:
            self.mark_bytes = self.now_bytes
        return self.has_peak

    def peak_bytes(self) -> int:
        assert self.has_peak, "a peak that could not be started anew must not be read"
        return self.mark_bytes

    def close(self) -> None:
        self.closed = True


class FakeTracer:
    """Traced memory and its high-water mark."""

    def __init__(self, *, tracing: bool = False) -> None:
        self.session = 1 if tracing else 0
        self.now_bytes = 0
        self.mark_bytes = 0

    def use(self, traced_bytes: int) -> None:
        """Traced memory becomes this; the mark follows upwards."""
        self.now_bytes = traced_bytes
        self.mark_bytes = max(self.mark_bytes, traced_bytes)

    def begin(self) -> int:
        assert self.session
        self.mark_bytes = self.now_bytes
        return self.now_bytes

    def read(self) -> tuple[int, int]:
        assert self.session
        return self.now_bytes, self.mark_bytes


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def move(self, by: float) -> None:
        self.now += by


class ListSink:
    """Keeps the records it is sent."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def send(self, record: Record) -> bool:
        self.records.append(record)
        return True


class FakeInFlightTable:
    """The tasks in flight on a control page, by slot, and the idle processes."""

    def __init__(self, by_slot: dict[int, bytes] | None = None) -> None:
        self.by_slot = by_slot or {}
        self.idle_pids: set[int] = set()

    def in_flight(self, slot: int) -> bytes:
        return self.by_slot.get(slot, b"")

    def idle(self, _: int, pid: int) -> bool:
        return pid in self.idle_pids

    def clear_in_flight(self, slot: int) -> None:
        self.by_slot.pop(slot, None)


def exits_to(sink: RecordSink) -> ChildExits:
    """Exits of children without tasks in flight, sent to `sink`."""
    return ChildExits(sink, FakeInFlightTable())
