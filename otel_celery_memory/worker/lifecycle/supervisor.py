"""Starts the reporter from the main process, starts it again if it dies or hangs, and stops it.

The reporter is started with exec and never forks: it has our only OpenTelemetry SDK state, which
does not survive a fork.

**It is nobody's child.** In the solo and threads pools tasks run in the main process, and a task
that waits for all its children (``os.wait()`` until ECHILD) would wait for the reporter too. So a
small program starts the reporter and ends, and the main process reaps that program at once. What is
left is an orphan: the system's init adopts and reaps it. The main process watches it by its pid and
start time.

Where the main process is itself process 1, or a child subreaper, it adopts the orphan, and we reap
it. There a task of the solo or threads pool that waits for all children does wait for the reporter:
every process there descends from process 1, so no intermediate would help.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from otel_celery_memory.ipc.records import WAKE_SIGNAL
from otel_celery_memory.probes.limits import oom_kill_counter
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.record_writer import RecordWriter

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S = 1.0
STOP_TIMEOUT_S = 8.0
"""Longer than the reporter's own limit for its last flush."""
HANG_S = 30.0
"""A reporter is replaced if its loop stands still for so long; normally it turns twice a second."""
_QUICK_DEATH_S = 10.0
_LONGEST_PAUSE_S = 60.0
_AUTO_INSTRUMENTATION = "opentelemetry/instrumentation/auto_instrumentation"
_START_TIMEOUT_S = 30.0
"""The small program takes some 20 ms; this is for machines that stand still."""
_KILLED_WITHIN_S = 5.0
_POLL_S = 0.02
_STARTER = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_IGN)
answer = int(sys.argv[1])
try:
    pid = os.fork()
except OSError as error:
    os._exit(error.errno)
if pid:
    os.write(answer, b"%d" % pid)
    os._exit(0)
os.setsid()
os.close(answer)
try:
    os.execv(sys.argv[2], sys.argv[2:])
finally:
    os._exit(127)
"""
"""Starts the reporter and ends. The reporter ignores these signals from its first instruction on:
they are meant for the worker's process group, and it ends after the worker."""


class ReporterProcess:
    """A process that is not our child: its exit code is not known, unless we adopted it."""

    def __init__(self, pid: int) -> None:
        """Watch a process that has just been started; it may have ended already."""
        self.pid = pid
        self._process: psutil.Process | None = None
        # Its start time tells it from a later process of the same pid. A pidfd would be one more
        # descriptor that tasks may close and children inherit, and cannot tell a zombie.
        with suppress(psutil.Error):
            self._process = psutil.Process(pid)

    def is_running(self) -> bool:
        """Whether it has not ended. A zombie has: whoever adopted it may never reap it."""
        try:
            if self._process is None:  # it has ended, or there is no /proc
                os.kill(self.pid, 0)
                return True
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        except (ProcessLookupError, psutil.NoSuchProcess):
            return False
        except (OSError, psutil.Error):
            return True

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def wake(self) -> None:
        """Have it read at once what it would read within half a second."""
        self._send(WAKE_SIGNAL)

    def _send(self, number: int) -> None:
        """Send a signal to this process and to no later one of its pid."""
        with suppress(psutil.Error, OSError):
            if self._process is None:
                os.kill(self.pid, number)
            else:
                self._process.send_signal(number)

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; whether it came in time."""
        until_s = time.monotonic() + timeout_s
        while self.is_running():
            if time.monotonic() >= until_s:
                return False
            time.sleep(_POLL_S)
        return True

    def reap(self) -> int | None:
        """After its end: reap it if we adopted it; its exit code, ``None`` if that is not known."""
        # Its pid may be a child's of somebody else by now.
        with suppress(psutil.Error, OSError):
            if self._process is None or not self._process.is_running():
                return None
            if self._process.ppid() == os.getpid():
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                return os.waitstatus_to_exitcode(status) if pid else None
        return None


class Supervisor:
    """One reporter process for one worker."""

    hang_s = HANG_S
    """Shorter in tests."""

    def __init__(
        self,
        writer: RecordWriter,
        settings: Settings,
        node_name: str,
        max_memory_kib: int,
        log_file: str = "",
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._settings = settings
        self._node_name = node_name
        self._max_memory_kib = max_memory_kib
        self._log_file = log_file
        self._oom_kills = oom_kill_counter(os.getpid())()
        self._clock_s = clock_s
        self._process: ReporterProcess | None = None
        self._started_s = 0.0
        self._died_s: float | None = None
        self._exit_code: int | None = None
        self._pause_s = 0.0
        self._last_beat = b""
        self._checked_s = 0.0
        self._silent_s = 0.0
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The reporter's pid, ``None`` if it was not started."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Starts the reporter; raises `OSError` if no process can be started."""
        self._started_s = self._checked_s = self._clock_s()
        self._silent_s = 0.0
        self._died_s = None
        passed = self._writer.descriptors()
        self._process = _start_detached(
            [
                sys.executable,
                "-m",
                "otel_celery_memory.reporter",
                f"--worker={self._node_name}",
                f"--main-pid={os.getpid()}",
                f"--rings={passed[0]}",
                f"--page={passed[1]}",
                f"--status={passed[2]}",
                f"--journal={passed[3]}",
                f"--restarts={self.restarts}",
                f"--max-memory-kib={self._max_memory_kib}",
                *([f"--log-file={self._log_file}"] if self._log_file else []),
                *([] if self._oom_kills is None else [f"--oom-kills={self._oom_kills}"]),
            ],
            reporter_environ(os.environ, self._settings),
            passed,
        )

    def check(self) -> bool:
        """Starts the reporter again if it died, and kills it if it hangs.

        To be called every `CHECK_INTERVAL_S`. Returns whether the reporter was started again.
        """
        if self._process is None:
            return False
        if self._process.is_running():
            if self._hangs():
                logger.warning(
                    "otel_celery_memory: the reporter has hung for %.0f s and is killed",
                    self.hang_s,
                )
                self._process.kill()  # a later check reaps it: this one must not wait
            return False
        now_s = self._clock_s()
        if self._died_s is None:
            self._died_s = now_s
            self._exit_code = self._process.reap()
        if now_s - self._started_s < self._pause_s:
            return False
        if self._died_s - self._started_s < _QUICK_DEATH_S:
            self._pause_s = min(max(2 * self._pause_s, CHECK_INTERVAL_S), _LONGEST_PAUSE_S)
        else:
            self._pause_s = 0.0
        logger.warning(
            "otel_celery_memory: the reporter (process %d) ended after %.0f s%s "
            "and is started again",
            self._process.pid,
            self._died_s - self._started_s,
            "" if self._exit_code is None else f" with exit code {self._exit_code}",
        )
        return self._start_again()

    def _hangs(self) -> bool:
        now_s, beat = self._clock_s(), self._writer.page.last_beat()
        if beat != self._last_beat:
            self._last_beat, self._silent_s = beat, 0.0
        else:
            # What kept this process from checking (a task of the solo pool, a paused container) may
            # have kept the reporter from working too.
            self._silent_s += min(now_s - self._checked_s, 2 * CHECK_INTERVAL_S)
        self._checked_s = now_s
        return self._silent_s >= self.hang_s

    def restart_if_dead(self) -> bool:
        """Starts a dead reporter once more without a pause; returns whether it did."""
        if self._process is None or self._process.is_running():
            return False
        self._process.reap()
        return self._start_again()

    def _start_again(self) -> bool:
        self.restarts += 1
        try:
            self.start()
        except OSError as error:
            self.restarts -= 1
            logger.error("otel_celery_memory: the reporter cannot be started: %s", error)
            return False
        return True

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Waits for the reporter's last export and its end; kills it after `timeout_s`."""
        if self._process is None:
            return
        self._process.wake()
        if not self._process.wait(timeout_s):
            logger.warning("otel_celery_memory: the reporter did not end in time and is killed")
            self._process.kill()
            self._process.wait(_KILLED_WITHIN_S)
        self._process.reap()
        self._process = None


def _start_detached(
    command: Sequence[str], environ: Mapping[str, str], passed: Sequence[int]
) -> ReporterProcess:
    """Start a program that is not our child; raises `OSError` if no process can be started."""
    answer, said = os.pipe()
    os.set_blocking(answer, False)
    try:
        starter = subprocess.Popen(  # noqa: S603
            [command[0], "-I", "-S", "-c", _STARTER, str(said), *command],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            pass_fds=(*passed, said),
            start_new_session=True,
        )
        try:
            code = starter.wait(_START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            starter.kill()
            starter.wait()
            raise TimeoutError(f"no process within {_START_TIMEOUT_S:.0f} s") from None
        # Its exit code is 0 too if a task that waits for any child has reaped it.
        try:
            pid = os.read(answer, 32)
        except BlockingIOError:
            pid = b""
    finally:
        os.close(answer)
        os.close(said)
    if not pid:
        raise OSError(max(code, 0), f"no process: {os.strerror(max(code, 0))}")
    # So soon the pid is nobody else's.
    return ReporterProcess(int(pid))


def can_start_again() -> bool:
    """Whether this interpreter can be started with ``-m``: frozen applications cannot."""
    return bool(sys.executable) and not getattr(sys, "frozen", False)


def reporter_environ(environ: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The worker's environment, with our settings and the worker's import path, for the reporter.

    OpenTelemetry's auto-instrumentation is on ``PYTHONPATH`` as a ``sitecustomize``. It is left
    out, as it would instrument the reporter.
    """
    # Our own path comes last: before the standard library it could shadow that.
    path = [*sys.path, str(Path(__file__).resolve().parents[3])]
    kept = {key: value for key, value in environ.items() if key != "PYTHONTRACEMALLOC"}
    return {
        **kept,
        **settings.to_environ(),
        "PYTHONPATH": os.pathsep.join(
            dict.fromkeys(
                entry
                for entry in path
                if entry and not Path(entry).as_posix().endswith(_AUTO_INSTRUMENTATION)
            )
        ),
        # The working directory is on the path only if the worker had it there (Python 3.11).
        "PYTHONSAFEPATH": "1",
    }
