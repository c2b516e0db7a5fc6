"""A real reporter that is stopped is replaced; one that works, or is not checked, is not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.lifecycle.supervisor import HANG_S, ReporterProcess, Supervisor
from otel_celery_memory.worker.record_writer import RecordWriter
from tests.processes import wait_until
from tests.unit.fakes import FakeClock


class Bench:
    """A supervisor on a clock, with a real reporter."""

    def __init__(self) -> None:
        self.clock = FakeClock(1_000.0)
        self.pipe = RecordWriter()
        self.supervisor = Supervisor(self.pipe, Settings(), "celery@box", 0, clock_s=self.clock)
        self.supervisor.start()
        self.wait_for_beat()

    def wait_for_beat(self) -> None:
        """Return after the reporter's next heartbeat."""
        before = self.pipe.page.last_beat()
        wait_until("it beats", lambda: self.pipe.page.last_beat() != before, 60)

    def stop_reporter(self) -> int:
        """Stop it as a debugger does; its pid."""
        pid = self.supervisor.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        stopped = psutil.Process(pid)
        wait_until("it stands", lambda: stopped.status() == psutil.STATUS_STOPPED, 60)
        self.supervisor.check()  # sees the last beat
        return pid

    def check(self, seconds: float, *, every_s: float = 1.0) -> None:
        """Check it for so long, by the clock."""
        for _ in range(int(seconds / every_s)):
            self.clock.move(every_s)
            self.supervisor.check()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    made = Bench()
    yield made
    made.supervisor.stop(0)
    made.pipe.close()


def test_a_reporter_that_hangs_is_killed_and_started_again_and_that_is_counted(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    stopped = bench.stop_reporter()
    bench.check(HANG_S - 1)
    assert (bench.supervisor.pid, caplog.records) == (stopped, [])
    bench.check(1)
    assert ReporterProcess(stopped).wait(60)
    bench.clock.move(1)
    assert bench.supervisor.check()
    assert (bench.supervisor.restarts, bench.supervisor.pid != stopped) == (1, True)
    bench.wait_for_beat()
    assert [record.getMessage() for record in caplog.records] == [
        "otel_celery_memory: the reporter has hung for 30 s and is killed",
        f"otel_celery_memory: the reporter (process {stopped}) ended after 31 s "
        "and is started again",
    ]


def test_time_without_checks_does_not_count_as_a_hang(bench: Bench) -> None:
    stopped = bench.stop_reporter()
    bench.check(3 * HANG_S, every_s=HANG_S)
    os.kill(stopped, signal.SIGCONT)
    bench.wait_for_beat()
    bench.check(HANG_S, every_s=HANG_S)
    assert (bench.supervisor.pid, bench.supervisor.restarts) == (stopped, 0)


def test_a_reporter_that_works_is_left_alone_however_long(bench: Bench) -> None:
    pid = bench.supervisor.pid
    for _ in range(4):
        bench.wait_for_beat()
        bench.check(HANG_S - 1)
    assert (bench.supervisor.pid, bench.supervisor.restarts) == (pid, 0)
