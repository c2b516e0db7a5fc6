"""Logging of the reporter: a line of each kind once in ten minutes, repetitions counted.

While a Collector is down, the SDK's exporters log every attempt. The reporter logs to the worker's
log file: its standard error is the worker's, which is ``/dev/null`` in a detached worker. The file
may be rotated.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from logging.handlers import WatchedFileHandler

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
