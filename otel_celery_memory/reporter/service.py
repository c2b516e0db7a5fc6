"""The reporter's loop: reads records, notices ended processes, ticks, ends with the worker.

- **The rings are read by the clock**: every tenth of a second while records arrive, and at each
  other wake-up. So a process that sends a record need not wake anybody, and an idle worker's
  reporter wakes no more often than its checks do.
- **The main process's records are applied after its children's.** It sends what it sees of a child
  after what that child sent, and each ring keeps its own order only.
- **The journal outlives the reporter.** Frames are taken into memory that the main process holds
  (`ipc/journal.py`). They stay there until an endpoint acknowledges the metrics of them. A
  reporter that is started again applies the rest once more, so each kind of record must become
  metrics, or be harmless if it comes twice: parts of captures are left out, and ends that were
  acknowledged are not classified again. At most 4 MiB wait; of a longer outage only the last part
  reaches a successor. Ends of processes that were classified after the last acknowledged export may
  be missing from the counts: their records were released before.
- **No collection while a record is applied** (`RecordReader.applying`), so that each collection
  lies between two records.
- **The worker's end.** After a goodbye, or the end of the main process, the rings are read until no
  other process of the worker runs, but no longer than a second: after ``uninstrument()`` in a
  running worker its children go on. Without a goodbye, the worker was killed, and the reporter
  emits its loss.

**Its log.** A line for each loss (`losses.py`) and each leak (`leak_log.py`), and one of each other
kind in ten minutes, repetitions counted: pressure on a limit comes and goes, and while a Collector
is down, the SDK's exporters log every attempt. The reporter logs to the worker's log file, as its
standard error is the worker's, which is ``/dev/null`` in a detached worker. The file may be
rotated.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from logging.handlers import WatchedFileHandler
from selectors import EVENT_READ, BaseSelector
from threading import Lock

from otel_celery_memory.circuit_breaker import CircuitBreaker
from otel_celery_memory.ipc.codec import records_in
from otel_celery_memory.ipc.journal import Journal
from otel_celery_memory.ipc.records import (
    MAIN_SLOT,
    ProcessExited,
    ProcessUp,
    Record,
    TaskFinished,
)
from otel_celery_memory.ipc.ring import CHUNK_BYTES, RING_BYTES_MAX, Batch, RingReader
from otel_celery_memory.reporter import leak_log, losses
from otel_celery_memory.reporter.descendants import Descendants
from otel_celery_memory.reporter.emitter import Emitter
from otel_celery_memory.reporter.leak_watch import LeakWatch
from otel_celery_memory.reporter.limits import LimitWatcher
from otel_celery_memory.reporter.process_watcher import ProcessWatcher
from otel_celery_memory.reporter.state.worker_state import InFlightTasks
from otel_celery_memory.reporter.view import Inspector

TICK_S = 1.0
_READ_S = 0.1
"""Between two reads while records arrive, so that one wake-up serves many tasks. The smallest ring
takes 250 of them meanwhile."""
_IDLE_READ_S = 0.5
"""Between two reads otherwise. The rings of a small pool are large: 4,000 records of a child alone
fit, 500 of each of 32 children."""
_LINGER_S = 1.0
"""How long the rings are still read after the main process has ended or said goodbye, while other
processes of the worker run."""
_ROUNDS = RING_BYTES_MAX // CHUNK_BYTES + 1
"""Of one read, each with one chunk of the main process's ring: in a pool without children, all
records are there."""
_WAKE = "wake"
_IN_FLIGHT = "tasks_in_flight"
_DESCENDANTS = "descendants"
_LEAKS = "leaks"
INDISPENSABLE = ("records", "ticks")
_MAIN_RING = MAIN_SLOT + 1


class RecordReader:
    """Takes records from the rings into the journal; exports acknowledge them."""

    def __init__(
        self,
        used: Callable[[], Sequence[int]],
        map_ring: Callable[[int], mmap.mmap],
        journal: Journal,
    ) -> None:
        """``used`` gives the numbers of the rings in use, ``map_ring`` maps one."""
        self.applying = Lock()
        """Held while records are applied, and while metrics are collected."""
        self._used = used
        self._map_ring = map_ring
        self._journal = journal
        self._readers: dict[int, RingReader] = {}
        self._damaged = 0

    def read(self, *, last: bool = False) -> list[Record]:
        """The records that processes have written; ``last``: no process writes any more.

        Empty if there are none. Bounded, at more than the rings hold.
        """
        found: list[Record] = []
        numbers = [number for number in self._used() if number != _MAIN_RING]
        for number in (_MAIN_RING, *numbers):
            if reader := self._reader(number):
                self._damaged += reader.begin_round()
        for _ in range(_ROUNDS):
            # The main process's are looked at before those of its children, and taken after them.
            main = self._reader(_MAIN_RING)
            batch = main.read(last=last) if main else None
            before = len(found)
            for number in numbers:
                self._take_all(number, found, last=last)
            if batch is not None:
                self._take(_MAIN_RING, batch, found)
            if batch is None and len(found) == before:
                break
        return found

    def unacknowledged(self) -> Iterator[Record]:
        """Records that an earlier reporter had taken and no endpoint has acknowledged."""
        for record in records_in(self._journal.unacknowledged()):
            # Parts of a capture become no metric, and the capture may be complete already.
            if not getattr(record, "capture", 0):
                yield record

    def position(self) -> int:
        """Position in the stream of records, in bytes, up to which all have been applied."""
        return self._journal.read_to

    def acknowledge(self, position: int) -> None:
        """An endpoint has the metrics of all records up to this position."""
        self._journal.acknowledge(position)

    def damaged(self) -> int:
        """Number of damaged frames since the last call."""
        found, self._damaged = self._damaged, 0
        return found

    def close(self) -> None:
        """Unmaps the rings and the journal."""
        for reader in self._readers.values():
            reader.close()
        self._journal.close()

    def _take_all(self, number: int, found: list[Record], *, last: bool) -> None:
        reader = self._reader(number)
        for _ in range(RING_BYTES_MAX // CHUNK_BYTES):
            batch = reader.read(last=last) if reader else None
            if batch is None:
                return
            self._take(number, batch, found)

    def _take(self, number: int, batch: Batch, found: list[Record]) -> None:
        """Into the journal first, then out of the ring: whoever is killed between, none is lost."""
        self._journal.take(batch.frames, number, batch.place)
        self._readers[number].release(batch.place)
        self._damaged += batch.damaged
        found += batch.records

    def _reader(self, number: int) -> RingReader | None:
        reader = self._readers.get(number)
        if reader is None:
            try:
                reader = RingReader(self._map_ring(number), self._journal.place(number))
            except (OSError, ValueError):
                return None  # tried again with the next read
            self._readers[number] = reader
        return reader


class ReporterService:
    """Runs until all processes of the worker have ended, or a second after a goodbye."""

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
        descendants: Descendants,
        leak_watch: LeakWatch,
        oom_kills: Callable[[], int | None],
        send_events: Callable[[], None],
        breaker: CircuitBreaker,
        beat: Callable[[], None],
        wake_fd: int | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """``wake_fd``: what becomes readable where the rings are to be read at once."""
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
        self._descendants = descendants
        self._leak_watch = leak_watch
        self._oom_kills = oom_kills
        self._send_events = send_events
        self._clock_s = clock_s
        self._ranked_s = clock_s()
        self._deadline_s: float | None = None
        self._guarded = breaker.run
        self._beat = beat
        self._wake_fd = wake_fd

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
        if self._wake_fd is not None:
            self._selector.register(self._wake_fd, EVENT_READ, _WAKE)
        self._guarded("oom_kills", self._read_oom_kills)
        self._process_up(self._main_pid, MAIN_SLOT)
        now_s = next_read_s = self._clock_s()
        next_tick_s = now_s + TICK_S
        next_check_s = self._limit_watcher.due_s
        while not self._ended():
            self._beat()
            due_s = min(next_tick_s, next_check_s, next_read_s)
            ready = self._selector.select(max(due_s - self._clock_s(), 0))
            gone = [key.data for key, _ in ready if key.data != _WAKE]
            if self._wake_fd is not None and len(gone) < len(ready):
                os.read(self._wake_fd, 64)
            # Reads all that a process wrote before its end is noted.
            found = self._read()
            for pid in gone:
                self._process_gone(pid)
            now_s = self._clock_s()
            next_read_s = now_s + (_READ_S if found else _IDLE_READ_S)
            if now_s >= next_check_s:
                self._guarded(_IN_FLIGHT, self._in_flight.read)
                self._guarded("limits", self._limit_watcher.check)
                # A watcher that is switched off does not move its due time.
                due_s = self._limit_watcher.due_s
                next_check_s = due_s if due_s > now_s else now_s + TICK_S
            if now_s >= next_tick_s:
                next_tick_s = now_s + TICK_S
                self._guarded("ticks", self._tick, now_s)
        self._read(last=True)
        self._guarded("ticks", self._finish)

    def _read(self, *, last: bool = False) -> bool:
        """Applies the records in the rings; returns whether there were any."""
        with self._record_reader.applying:
            records = self._record_reader.read(last=last)
            for record in records:
                self._guarded("records", self._apply, record)
        if self._emitter.state.said_goodbye and self._deadline_s is None:
            self._deadline_s = self._clock_s() + _LINGER_S
        return bool(records)

    def _apply(self, record: Record) -> None:
        self._emitter.apply(record)
        self._guarded(_LEAKS, self._leak_watch.apply, record)
        if isinstance(record, TaskFinished):
            self._guarded(_DESCENDANTS, self._descendants.finished, record)
        elif isinstance(record, ProcessUp):
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
        self._leak_watch.process_gone(pid)
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
        self._emitter.losses.log_held_back()
        if any(end.lost for end in ends):
            # What killed a child may kill the reporter next.
            self._guarded("sending", self._send_events)
        # Which run has started a process is decided by what is in flight now.
        self._guarded(_IN_FLIGHT, self._in_flight.read)
        self._guarded(_DESCENDANTS, self._descendants.look)
        if now_s - self._ranked_s >= self._sites_interval_s:
            self._rank(now_s, now_ns)
        self._guarded(_LEAKS, self._leak_watch.tick)
        self._guarded("requests", self._inspector.tick)
        self._count_damaged()

    def _count_damaged(self) -> None:
        if damaged := self._record_reader.damaged():
            self._count_damaged_frames(damaged)

    def _rank(self, now_s: float, now_ns: int) -> None:
        self._emitter.emit_sites(max(now_s - self._ranked_s, 0.001), now_ns)
        self._ranked_s = now_s
        self._inspector.ranked()

    def _ended(self) -> bool:
        if self._deadline_s is None:
            return False
        others = self._process_watcher.runs_another(self._main_pid)
        return not others or self._clock_s() >= self._deadline_s

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
        self._emitter.losses.log_held_back(all_now=True)
        self._guarded("requests", self._inspector.finish)
        self._rank(self._clock_s(), now_ns)
        self._count_damaged()


REPEAT_AFTER_S = 600.0


class RepetitionFilter(logging.Filter):
    """Passes one record of each family of loggers in `REPEAT_AFTER_S`, each loss and each leak."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock_s = clock_s
        self._passed: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name in (losses.logger.name, leak_log.logger.name):
            return True
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
