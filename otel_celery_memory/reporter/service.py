"""The reporter's loop: reads records, notices ended processes, ticks, ends with the worker.

- **The journal outlives the reporter.** The pipe is read into memory that the main process holds
  (`ipc/journal.py`). Records stay there until an endpoint acknowledges the metrics of them. A
  reporter that is started again applies the rest once more, so each kind of record must become
  metrics, or be harmless if it comes twice: parts of captures are left out, and ends that were
  acknowledged are not classified again. At most 4 MiB wait; of a longer outage only the last part
  reaches a successor. Each read is announced before it happens, so no measurement is lost. Ends of
  processes that were classified after the last acknowledged export may be missing from the counts:
  their records were released before.
- **No collection while a record is applied** (`RecordReader.applying`), so that each collection
  lies between two records.
- **The worker's end.** A process that a task forked may hold the pipe open for ever. So a goodbye,
  or the end of the main process, leaves the reporter one more second. If the pipe ends without a
  goodbye, the worker was killed, and the reporter emits its loss.

**Its log.** A line of each kind once in ten minutes, repetitions counted: while a Collector is
down, the SDK's exporters log every attempt. The reporter logs to the worker's log file, as its
standard error is the worker's, which is ``/dev/null`` in a detached worker. The file may be
rotated.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from logging.handlers import WatchedFileHandler
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
"""Pause between two reads, so that one wake-up serves many tasks. At 5,000 tasks a second some
150 KiB wait in a pipe of 1 MiB."""
_LINGER_S = 1.0
"""How long the pipe is still read after the main process has ended or said goodbye: a process
that a task forked may hold it open for ever."""
_PIPE = "pipe"
_IN_FLIGHT = "tasks_in_flight"
INDISPENSABLE = ("records", "ticks")


class RecordReader:
    """Reads records from the pipe into the journal; exports acknowledge them."""

    def __init__(self, pipe_fd: int, decoder: FrameDecoder, journal: Journal) -> None:
        self.fd = pipe_fd
        self.applying = Lock()
        """Held while records are applied, and while metrics are collected."""
        self._decoder = decoder
        self._journal = journal

    def read(self) -> tuple[int, list[Record]]:
        """Number of bytes read, 0 at the end of the pipe, and the records they complete.

        Raises `BlockingIOError` if the pipe is empty.
        """
        data = self._journal.read(self.fd)
        return len(data), self._decoder.feed(data) if data else self._decoder.finish()

    def unacknowledged(self) -> Iterator[Record]:
        """Records that an earlier reporter had read and no endpoint has acknowledged."""
        for record in self._decoder.feed(self._journal.unacknowledged()):
            # Parts of a capture become no metric, and the capture may be complete already.
            if not getattr(record, "capture", 0):
                yield record

    def position(self) -> int:
        """Position in the stream of records, in bytes, up to which all have been applied."""
        return self._journal.read_to - self._decoder.incomplete_bytes

    def acknowledge(self, position: int) -> None:
        """An endpoint has the metrics of all records up to this position."""
        self._journal.acknowledge(position)

    def bad_frames(self) -> int:
        """Number of damaged frames since the last call."""
        found, self._decoder.bad_frames = self._decoder.bad_frames, 0
        return found


class ReporterService:
    """Runs until the pipe ends, or until a second after the main process's end or goodbye."""

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
        """Applies the records of an earlier reporter that no endpoint has acknowledged.

        ``acknowledged_exits`` are the pids of processes whose end was exported before.
        """
        with self._record_reader.applying:
            for record in self._record_reader.unacknowledged():
                self._guarded("records", self._apply, record)
        for pid in acknowledged_exits:
            if not self._process_watcher.add(pid):
                self._emitter.exit_acknowledged(pid)

    def run(self) -> None:
        """Runs the loop to its end; the caller flushes."""
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
                # Reads all that a process wrote before its end is noted.
                open_ended = self._read()
            for pid in gone:
                self._process_gone(pid)
            now_s = self._clock_s()
            if now_s >= next_check_s:
                self._guarded(_IN_FLIGHT, self._in_flight.read)
                self._guarded("limits", self._limit_watcher.check)
                # A watcher that is switched off does not move its due time.
                due_s = self._limit_watcher.due_s
                next_check_s = due_s if due_s > now_s else now_s + TICK_S
            if now_s >= next_tick_s:
                next_tick_s = now_s + TICK_S
                self._guarded("ticks", self._tick, now_s)
            elif ready:
                time.sleep(_PAUSE_S)
        self._guarded("ticks", self._finish)

    def _read(self) -> bool:
        """Applies the records in the pipe; returns ``False`` at its end."""
        # Bounded, at more than the pipe holds: ticks must go on under a flood.
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
            self._process_gone(record.pid)  # reaped: the pid may belong to another process now

    def _process_up(self, pid: int, slot: int) -> None:
        """A process of the worker is up; it may have ended again by now."""
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
        # Known only from a task or an end: an earlier reporter read their ProcessUp.
        for pid, process in list(state.processes.items()):
            if process.gone_ns is None and not self._process_watcher.add(pid):
                self._process_gone(pid)
        now_ns = time.time_ns()
        ends = state.classify_ended(now_ns)
        for end in ends:
            self._emitter.ended(end)
        if any(end.lost for end in ends):
            # What killed a child may kill the reporter next.
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
        """The worker has ended: emits the ends of its last processes, and the last sites."""
        state = self._emitter.state
        self._guarded("oom_kills", self._read_oom_kills)
        now_ns = time.time_ns()
        for pid, process in list(state.processes.items()):
            # After uninstrument() in a running worker the children go on.
            child = pid != self._main_pid and process.down is None
            if not (child and state.said_goodbye and self._process_watcher.is_running(pid)):
                state.gone(pid, now_ns)
        for end in state.classify_ended(now_ns, all_now=True):
            self._emitter.ended(end)
        self._guarded("requests", self._inspector.finish)
        self._rank(self._clock_s(), now_ns)
        self._count_damaged()


REPEAT_AFTER_S = 600.0


class RepetitionFilter(logging.Filter):
    """Passes one record of each family of loggers in `REPEAT_AFTER_S`."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock_s = clock_s
        self._passed: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = _family(record.name)
        now_s = self._clock_s()
        passed_s, suppressed = self._passed.get(key, (-REPEAT_AFTER_S, 0))
        if now_s - passed_s < REPEAT_AFTER_S:
            self._passed[key] = (passed_s, suppressed + 1)
            return False
        self._passed[key] = (now_s, 0)
        record.msg = _one_line(record, suppressed)
        record.args = ()
        record.exc_info = record.exc_text = None
        return True


def _family(logger_name: str) -> str:
    """One family for all exporters, sessions and retries: they log the same dead endpoint."""
    return "export" if "export" in logger_name else logger_name


def _one_line(record: logging.LogRecord, suppressed: int) -> str:
    try:
        message = record.getMessage()
    except (TypeError, ValueError, KeyError):
        message = str(record.msg)  # the arguments do not fit the format
    message = message.replace("\n", " ")[:500]
    if record.exc_info and record.exc_info[1] is not None:
        message = f"{message}: {record.exc_info[1]!r}"[:1000]
    more = f" ({suppressed} more like it before)" if suppressed else ""
    return f"{message}{more}; not repeated for {REPEAT_AFTER_S / 60:.0f} minutes"


class _LogFile(WatchedFileHandler):
    """A log file that may be rotated, or removed with its directory."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)


def set_up_logging(log_file: str = "") -> None:
    """Logs warnings and errors to ``log_file``, or else to standard error, without repetitions."""
    handler = _handler(log_file)
    handler.setFormatter(
        logging.Formatter("[%(asctime)s: %(levelname)s/memory reporter] %(message)s")
    )
    handler.addFilter(RepetitionFilter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)


def _handler(log_file: str) -> logging.Handler:
    if log_file:
        with contextlib.suppress(OSError):
            return _LogFile(log_file, encoding="utf-8")
    return logging.StreamHandler()
