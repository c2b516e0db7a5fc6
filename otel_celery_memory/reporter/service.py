"""The reporter's loop: read records, notice deaths, tick, and end when the worker has ended.

All that is read is kept in the journal until an endpoint has what was told of it. While records
are applied nobody collects, so that a collection lies between two records.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from selectors import EVENT_READ, BaseSelector
from threading import Lock

from otel_celery_memory.circuit_breaker import CircuitBreaker
from otel_celery_memory.ipc.codec import FrameDecoder
from otel_celery_memory.ipc.journal import Journal
from otel_celery_memory.ipc.records import MAIN_SLOT, ProcessExited, ProcessUp, Record
from otel_celery_memory.reporter.emitter import Emitter
from otel_celery_memory.reporter.limits import LimitWatcher
from otel_celery_memory.reporter.process_watcher import ProcessWatcher
from otel_celery_memory.reporter.state.worker_state import InFlightTasks
from otel_celery_memory.reporter.view import Inspector

TICK_S = 1.0
_MUCH_BYTES = 1 << 18
_PAUSE_S = 0.1
"""Frames gather for this long before they are read: one wake-up serves many tasks. At 5,000
tasks a second this is some 150 KiB in a pipe of 1 MiB."""
_LINGER_S = 1.0
"""How long the pipe may stay open after the main process is gone or has said goodbye: somebody
that a task forked may hold an end of it for ever."""
_PIPE = "pipe"
_IN_FLIGHT = "tasks_in_flight"
INDISPENSABLE = ("records", "ticks")


class RecordReader:
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

    def unacknowledged(self) -> Iterator[Record]:
        """What the reporter before this one had read, and told nobody who took it."""
        for record in self._decoder.feed(self._journal.left()):
            # A capture is complete once; its parts are no part of any metric.
            if not getattr(record, "capture", 0):
                yield record

    def position(self) -> int:
        """How far all that was read has been applied."""
        return self._journal.read_to - self._decoder.incomplete_bytes

    def acknowledge(self, position: int) -> None:
        """An endpoint has what was told of all up to this mark."""
        self._journal.taken(position)

    def bad_frames(self) -> int:
        """Frames that could not be read, since this was last asked."""
        found, self._decoder.bad_frames = self._decoder.bad_frames, 0
        return found


class ReporterService:
    """Runs until the pipe ends, or the main process is gone and the pipe is silent."""

    def __init__(
        self,
        record_reader: RecordReader,
        main_pid: int,
        emitter: Emitter,
        process_watcher: ProcessWatcher,
        limit_watcher: LimitWatcher,
        inspector: Inspector,
        selector: BaseSelector,
        sites_interval_s: float,
        count_damaged: Callable[[int], None],
        in_flight: InFlightTasks,
        oom_kills: Callable[[], int | None],
        send_events: Callable[[], None],
        breaker: CircuitBreaker,
        beat: Callable[[], None],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._record_reader = record_reader
        self._main_pid = main_pid
        self._emitter = emitter
        self._process_watcher = process_watcher
        self._limit_watcher = limit_watcher
        self._inspector = inspector
        self._selector = selector
        self._sites_interval_s = sites_interval_s
        self._count_damaged_frames = count_damaged
        self._in_flight = in_flight
        self._oom_kills = oom_kills
        self._send_events = send_events
        self._clock_s = clock_s
        self._ranked_s = clock_s()
        self._deadline_s: float | None = None
        self._guarded = breaker.run
        self._beat = beat

    def resume(self, acknowledged_exits: Iterable[int]) -> None:
        """Take in what an earlier reporter had read and nobody took; ``told`` are ends it told."""
        with self._record_reader.applying:
            for record in self._record_reader.unacknowledged():
                self._guarded("records", self._apply, record)
        for pid in acknowledged_exits:
            if not self._process_watcher.add(pid):
                self._emitter.exit_acknowledged(pid)

    def run(self) -> None:
        """The whole life of the reporter, but for the last flush."""
        self._selector.register(self._record_reader.fd, EVENT_READ, _PIPE)
        self._guarded("oom_kills", self._read_oom_kills)
        self._process_up(self._main_pid, MAIN_SLOT)
        next_tick_s = self._clock_s() + TICK_S
        next_check_s = self._limit_watcher.due_s
        open_ended = True
        while open_ended and not self._past_deadline():
            self._beat()
            ready = self._selector.select(max(min(next_tick_s, next_check_s) - self._clock_s(), 0))
            gone = [key.data for key, _ in ready if key.data != _PIPE]
            if ready:
                # All that a process wrote before it died is read before its death is noted.
                open_ended = self._read()
            for pid in gone:
                self._process_gone(pid)
            now_s = self._clock_s()
            if now_s >= next_check_s:
                self._guarded(_IN_FLIGHT, self._in_flight.read)
                self._guarded("limits", self._limit_watcher.check)
                # One that is switched off says no more when the next is due.
                due_s = self._limit_watcher.due_s
                next_check_s = due_s if due_s > now_s else now_s + TICK_S
            if now_s >= next_tick_s:
                next_tick_s = now_s + TICK_S
                self._guarded("ticks", self._tick, now_s)
            elif ready:
                time.sleep(_PAUSE_S)
        self._guarded("ticks", self._finish)

    def _read(self) -> bool:
        """Take in what is in the pipe; ``False`` at its end."""
        # A pipe's worth and more, but no end of it: ticks must go on under a flood.
        for _ in range(4):
            with self._record_reader.applying:
                try:
                    count, records = self._record_reader.read()
                except BlockingIOError:
                    return True
                for record in records:
                    self._guarded("records", self._apply, record)
            if not count:
                return False
            if count < _MUCH_BYTES:
                break
        if self._emitter.state.said_goodbye and self._deadline_s is None:
            self._deadline_s = self._clock_s() + _LINGER_S
        return True

    def _apply(self, record: Record) -> None:
        self._emitter.apply(record)
        if isinstance(record, ProcessUp):
            self._process_up(record.pid, record.slot)
        elif isinstance(record, ProcessExited):
            self._process_gone(record.pid)  # reaped: who has this pid now is somebody else

    def _process_up(self, pid: int, slot: int) -> None:
        """A process of the worker is up; it may be gone again by the time we hear of it."""
        self._emitter.apply(ProcessUp(pid, time.time_ns(), slot, 0))
        if not self._process_watcher.add(pid):
            self._process_gone(pid)

    def _process_gone(self, pid: int) -> None:
        self._guarded(_IN_FLIGHT, self._in_flight.read_process, pid)
        self._process_watcher.drop(pid)
        self._guarded("oom_kills", self._read_oom_kills)
        self._emitter.state.gone(pid, time.time_ns(), self._process_watcher.exit_code(pid))
        if pid == self._main_pid:
            self._deadline_s = self._clock_s() + _LINGER_S

    def _read_oom_kills(self) -> None:
        self._emitter.state.oom.update(self._oom_kills(), time.time_ns())

    def _tick(self, now_s: float) -> None:
        state = self._emitter.state
        self._guarded("oom_kills", self._read_oom_kills)
        for pid in self._process_watcher.gone_without_pidfd():
            self._process_gone(pid)
        # First heard of by a task or by its end: only a reporter that died had met them.
        for pid, process in list(state.processes.items()):
            if process.gone_ns is None and not self._process_watcher.add(pid):
                self._process_gone(pid)
        now_ns = time.time_ns()
        ends = state.classify_ended(now_ns)
        for end in ends:
            self._emitter.ended(end)
        if any(end.lost for end in ends):
            # Who killed a child may kill us next.
            self._guarded("sending", self._send_events)
        if now_s - self._ranked_s >= self._sites_interval_s:
            self._rank(now_s, now_ns)
        self._guarded("requests", self._inspector.tick)
        self._count_damaged()

    def _count_damaged(self) -> None:
        if damaged := self._record_reader.bad_frames():
            self._count_damaged_frames(damaged)

    def _rank(self, now_s: float, now_ns: int) -> None:
        self._emitter.emit_sites(max(now_s - self._ranked_s, 0.001), now_ns)
        self._ranked_s = now_s
        self._inspector.ranked()

    def _past_deadline(self) -> bool:
        return self._deadline_s is not None and self._clock_s() >= self._deadline_s

    def _finish(self) -> None:
        """The worker has ended: tell of its last processes and sites."""
        state = self._emitter.state
        self._guarded("oom_kills", self._read_oom_kills)
        now_ns = time.time_ns()
        for pid, process in list(state.processes.items()):
            # After uninstrument() under a running pool the children are still there.
            child = pid != self._main_pid and process.down is None
            if not (child and state.said_goodbye and self._process_watcher.is_running(pid)):
                state.gone(pid, now_ns)
        for end in state.classify_ended(now_ns, all_now=True):
            self._emitter.ended(end)
        self._guarded("requests", self._inspector.finish)
        self._rank(self._clock_s(), now_ns)
        self._count_damaged()
