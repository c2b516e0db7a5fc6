"""The demo's worker: a real `celery worker` with two children, started and ended within bounds."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import psutil

from demo.environment import ROOT

CHILDREN = 2
_LOG_LINES = 25
_PATIENCE = ((16.0, signal.SIGQUIT), (4.0, signal.SIGKILL))
"""Seconds for a warm shutdown, which may wait for a reporter that cannot reach its endpoint, then
for a cold one; and what is sent when they are over."""
_REPORTER_PATIENCE_S = 8.0
"""A reporter whose worker was killed notices, flushes and ends; no longer than this."""

_MEET_INTERVAL_S = 1.0


class WorkerError(Exception):
    """The worker failed; the message has the end of its log."""


class Worker:
    """Use as a context manager: no process of the worker is left behind it."""

    def __init__(self, environment: Mapping[str, str], directory: Path) -> None:
        self._log = directory / "worker.log"
        self._family: set[psutil.Process] = set()
        self._met_s = 0.0
        self._asked = False
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "--app=demo.app", "worker"),
                    *("--pool=prefork", f"--concurrency={CHILDREN}", "--hostname=demo@%h"),
                    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
                    "--loglevel=INFO",
                ],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C goes to the whole process group, and the demo shuts the worker down.
                start_new_session=True,
            )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Raise `WorkerError` if the worker has ended by itself."""
        code = self._process.poll()
        if code is None:
            self._meet_family()
        else:
            raise WorkerError(f"the worker ended with {code}; the end of its log:\n{self.tail()}")

    def ask_to_end(self) -> None:
        """Begin a warm shutdown, once."""
        if not self._asked:
            self._asked = True
            self._send(signal.SIGTERM)

    def stop(self) -> None:
        """End the worker, its children and its reporter: warmly, else coldly, else by force."""
        self.ask_to_end()
        for patience_s, number_after in _PATIENCE:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
                break
            self._send(number_after)
        self._process.wait()
        deadline_s = time.monotonic() + _REPORTER_PATIENCE_S
        while self._family_left() and time.monotonic() < deadline_s:
            time.sleep(0.05)
        for process in self._family_left():
            with contextlib.suppress(psutil.Error):
                process.kill()
                process.wait(1.0)

    def tail(self) -> str:
        """The end of the worker's log."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES:])

    def complaints(self) -> list[str]:
        """What the reporter wrote to the worker's log: it writes only when something is wrong."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if "/memory reporter]" in line]

    def _send(self, number: int) -> None:
        self._met_s = 0.0
        self._meet_family()
        self._process.send_signal(number)

    def _meet_family(self) -> None:
        """Records the worker's processes periodically: after its end nobody knows its children."""
        if time.monotonic() - self._met_s < _MEET_INTERVAL_S:
            return
        self._met_s = time.monotonic()
        with contextlib.suppress(psutil.Error):
            self._family.update(psutil.Process(self._process.pid).children(recursive=True))
            self._family.update(_reporters(self._process.pid))

    def _family_left(self) -> list[psutil.Process]:
        return [process for process in self._family if _runs(process)]


def _reporters(main_pid: int) -> list[psutil.Process]:
    """The reporter beside a worker, which is nobody's child: its command line names the worker."""
    word = f"--main-pid={main_pid}"
    return [
        each for each in psutil.process_iter(["cmdline"]) if word in (each.info["cmdline"] or ())
    ]


def _runs(process: psutil.Process) -> bool:
    try:
        # is_running compares start times: a pid that another process has got is not ours. In a
        # container whose first process reaps nobody, what ended stays as a zombie.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
