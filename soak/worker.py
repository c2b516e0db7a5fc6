"""The worker under the faults: its processes, and the control page with its drop counters."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from otel_celery_memory.ipc.control_page import ControlPage, DropCounts
from otel_celery_memory.probes.procfs import read_start_ticks
from tests.processes import Server, running
from tests.worker.harness import ROOT, reporters_of

CHILDREN = 2
EXPORT_INTERVAL_S = 1.0
_BEGINS_S = 0.2
QUEUE = "soak"
NODE = "soak@test"


@dataclass(frozen=True)
class SoakWorker:
    """A running worker."""

    server: Server

    @property
    def pid(self) -> int:
        """The main process."""
        return self.server.process.pid

    def reporter(self) -> psutil.Process | None:
        """The reporter's pid, if one runs."""
        for pid in reporters_of(self.pid):
            with suppress(psutil.Error):
                return psutil.Process(pid)
        return None

    def children(self) -> list[int]:
        """Pids of the pool's children that are at work."""
        return [each.pid for each in psutil.Process(self.pid).children() if _works(each)]

    def dropped(self) -> DropCounts:
        """Frames dropped so far, from the control page itself."""
        reporter = self.reporter()
        if reporter is None:
            raise RuntimeError("no reporter to find the page by")
        page = ControlPage(os.open(_descriptor(reporter, "--page"), os.O_RDWR))
        try:
            return page.drop_counters.counts()
        finally:
            page.close()

    def stop(self, timeout_s: float = 60) -> None:
        """Warm shutdown."""
        self.server.process.send_signal(signal.SIGTERM)
        self.server.process.wait(timeout_s)


def age_s(pid: int) -> float:
    """How long ago a process began, by the kernel's ticks since boot; 0 where it is gone.

    psutil's value is up to a second more: it adds them to the boot time in whole seconds.
    """
    ticks = read_start_ticks(pid)
    if ticks is None:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def _works(child: psutil.Process) -> bool:
    """Whether a child of the main process is one of the pool, and no reporter.

    One that was forked a moment ago may still become a reporter; or has not begun to work: killed
    then, billiard reports its end, and no task is lost.
    """
    try:
        if age_s(child.pid) < _BEGINS_S:
            return False
        words = child.cmdline()
    except psutil.Error:
        return False
    # One that was killed has no command line until it is reaped.
    return bool(words) and "otel_celery_memory.reporter" not in words


def _descriptor(reporter: psutil.Process, option: str) -> str:
    for word in reporter.cmdline():
        name, _, number = word.partition("=")
        if name == option:
            return f"/proc/{reporter.pid}/fd/{number}"
    raise RuntimeError(f"the reporter was started without {option}")


@contextmanager
def soak_worker(broker: str, endpoint: str, directory: Path) -> Iterator[SoakWorker]:
    """A worker with a pool of two children until the context ends."""
    command = [
        *(sys.executable, "-m", "celery", "--app=soak.app", "worker", f"--hostname={NODE}"),
        *(f"--queues={QUEUE}", f"--concurrency={CHILDREN}", "--loglevel=WARNING"),
        *("--without-mingle", "--without-gossip"),
    ]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    environ = {
        **kept,
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "SOAK_BROKER": broker,
        "SOAK_BACKEND": f"{broker.removesuffix('/0')}/1",
        "SOAK_MARKS": str(directory / "marks"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_CELERY_MEMORY_EXPORT_INTERVAL": str(EXPORT_INTERVAL_S),
    }
    with running("worker", command, directory, environ) as server:
        worker = SoakWorker(server)
        server.wait_ready(lambda: worker.reporter() and len(worker.children()) >= CHILDREN)
        time.sleep(EXPORT_INTERVAL_S)
        yield worker
