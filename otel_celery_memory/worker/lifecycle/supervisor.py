"""Starts the reporter, starts it again when it died or hangs, and ends it.

From the worker's main process.

The reporter is started with exec and never forked from: it has the only OpenTelemetry SDK state
of ours, which does not survive a fork.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from otel_celery_memory.probes.limits import oom_kill_counter
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.pipe import PipeWriter

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S = 1.0
STOP_TIMEOUT_S = 8.0
"""Longer than the reporter allows itself for its last flush."""
HANG_S = 30.0
"""A reporter whose loop stands still for so long is replaced; at work it turns twice a second."""
_QUICK_DEATH_S = 10.0
_LONGEST_PAUSE_S = 60.0
_AUTO_INSTRUMENTATION = "opentelemetry/instrumentation/auto_instrumentation"


class Supervisor:
    """One reporter process for one worker."""

    hang_s = HANG_S
    """Shorter in tests."""

    def __init__(
        self,
        pipe: PipeWriter,
        settings: Settings,
        node_name: str,
        max_memory_kib: int,
        log_file: str = "",
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pipe = pipe
        self._settings = settings
        self._node_name = node_name
        self._max_memory_kib = max_memory_kib
        self._log_file = log_file
        self._oom_kills = oom_kill_counter(os.getpid())()
        self._clock_s = clock_s
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._died_s: float | None = None
        self._pause_s = 0.0
        self._last_beat = b""
        self._looked_s = 0.0
        self._silent_s = 0.0
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The reporter's pid, ``None`` where none runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the reporter; raises `OSError` where no process can be started."""
        pipe = self._pipe
        passed = (pipe.read_fd, pipe.page.fd, pipe.status.fd, pipe.journal_fd)
        self._started_s = self._looked_s = self._clock_s()
        self._silent_s = 0.0
        self._died_s = None
        self._process = subprocess.Popen(  # noqa: S603
            [
                sys.executable,
                "-m",
                "otel_celery_memory.reporter",
                f"--worker={self._node_name}",
                f"--main-pid={os.getpid()}",
                f"--pipe={passed[0]}",
                f"--page={passed[1]}",
                f"--status={passed[2]}",
                f"--journal={passed[3]}",
                f"--restarts={self.restarts}",
                f"--max-memory-kib={self._max_memory_kib}",
                *([f"--log-file={self._log_file}"] if self._log_file else []),
                *([] if self._oom_kills is None else [f"--oom-kills={self._oom_kills}"]),
            ],
            env=reporter_environ(os.environ, self._settings),
            stdin=subprocess.DEVNULL,
            pass_fds=passed,
            # Signals to the worker's process group are not meant for it: it ends at the end of
            # the pipe.
            start_new_session=True,
        )

    def check(self) -> bool:
        """Start the reporter again if it died; called every `CHECK_INTERVAL_S`.

        One that hangs is killed first. Says whether it was started again.
        """
        if self._process is None:
            return False
        if self._process.poll() is None:
            if self._hangs():
                logger.warning(
                    "otel_celery_memory: the reporter hangs since %.0f s and is killed", self.hang_s
                )
                self._process.kill()  # reaped by a later check: nobody waits here
            return False
        now_s = self._clock_s()
        if self._died_s is None:
            self._died_s = now_s
        if now_s - self._started_s < self._pause_s:
            return False
        if self._died_s - self._started_s < _QUICK_DEATH_S:
            self._pause_s = min(max(2 * self._pause_s, CHECK_INTERVAL_S), _LONGEST_PAUSE_S)
        else:
            self._pause_s = 0.0
        logger.warning(
            "otel_celery_memory: the reporter ended (exit code %s), it is started again",
            self._process.returncode,
        )
        return self._start_again()

    def _hangs(self) -> bool:
        now_s, beat = self._clock_s(), self._pipe.page.last_beat()
        if beat != self._last_beat:
            self._last_beat, self._silent_s = beat, 0.0
        else:
            # Whatever kept this process from looking (a task of the solo pool, a container that
            # was paused) may have kept the reporter from working too.
            self._silent_s += min(now_s - self._looked_s, 2 * CHECK_INTERVAL_S)
        self._looked_s = now_s
        return self._silent_s >= self.hang_s

    def restart_if_dead(self) -> bool:
        """Start a reporter that died once more, whatever its pause; whether that was done."""
        dead = self._process is not None and self._process.poll() is not None
        return dead and self._start_again()

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
        """Wait for the reporter to send what it has and end; kill it when it takes too long."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            logger.warning("otel_celery_memory: the reporter did not end in time and is killed")
            self._process.kill()
            self._process.wait()
        self._process = None


def can_start_again() -> bool:
    """Whether this interpreter can be started with ``-m``: not so in frozen applications."""
    return bool(sys.executable) and not getattr(sys, "frozen", False)


def reporter_environ(environ: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The reporter's environment: the worker's, with our settings and the worker's import path.

    OpenTelemetry's auto-instrumentation lives on ``PYTHONPATH`` as a ``sitecustomize``; in the
    reporter it would instrument the reporter.
    """
    # Last, where it adds nothing if it is there: before the standard library it would shadow it.
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
        # The working directory is on the path only where the worker had it there (3.11).
        "PYTHONSAFEPATH": "1",
    }
