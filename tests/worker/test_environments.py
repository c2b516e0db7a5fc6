"""Where a worker may write nothing, or open little: it is measured, and what cannot be is said."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import (
    CONTROLLED,
    Broker,
    Start,
    exits,
    losses,
    measured,
    reporters_of,
    wait_answered,
    wait_measured,
    wait_restarted,
)
from tests.worker.namespaces import needs_mounts

CELERY = str(Path(sys.executable).parent / "celery")
OURS = re.compile(r"^(?!.*: INFO/).*(?:/memory reporter\]|otel_celery_memory).*$", re.MULTILINE)
"""What we have to say but how it is measured, and how much was."""
READ_ONLY = 'mount -o remount,ro,bind / && ! touch "$HOME/x" && exec "$0" "$@"'


@needs_mounts
def test_a_worker_that_may_write_nowhere_is_measured_all_the_same(
    start: Start, receiver: Receiver
) -> None:
    prefix = ["unshare", "--mount", "sh", "-c", READ_ONLY, CELERY]
    # The prefork pool itself needs a directory for temporary files.
    with start(arguments=["--pool=solo"], prefix=prefix) as worker:
        for _ in range(10):
            worker.run("noop")
        worker.stop()
    assert "Read-only file system" in worker.log()
    assert measured(receiver.received) == {"noop": 10}
    peaks = receiver.received.latest("celery.task.memory.rss.peak")
    assert sum(point.count for point in peaks) == 10
    assert OURS.findall(worker.log()) == []


@needs_mounts
def test_on_a_read_only_root_what_cannot_be_written_is_logged_once(
    start: Start, receiver: Receiver, tmp_path: Path, broker: Broker
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environ = {
        "TMPDIR": str(temporary),
        **CONTROLLED,
        "OTEL_CELERY_MEMORY_STATE_DIRECTORY": str(tmp_path / "state"),
        "OTEL_CELERY_MEMORY_CAPTURE_DIRECTORY": str(tmp_path / "captures"),
    }
    script = f'mount -t tmpfs tmpfs "$TMPDIR" && {READ_ONLY}'
    prefix = ["unshare", "--mount", "sh", "-c", script, CELERY]
    with start(arguments=["--concurrency=2"], prefix=prefix, environ=environ) as worker:
        for _ in range(10):
            worker.run("noop")
        answer, _ = worker.remote("control", "memory_capture", "3", broker=broker)
        worker.send("die", signal.SIGKILL)
        wait_until("the loss is counted", lambda: "killed" in exits(receiver.received), 20)
        worker.run("noop")
        worker.stop()
    assert f"{tmp_path}/captures' cannot be used: Read-only file system" in answer
    line, loss = OURS.findall(worker.log())
    assert f"the state cannot be saved in {tmp_path}/state: [Errno 30] Read-only file" in line
    assert "was lost in tests.worker.app.die [" in loss
    assert measured(receiver.received) == {"noop": 11}
    assert exits(receiver.received) == {"killed": 1, "shutdown": 2}


@pytest.mark.parametrize(("limit", "lowest"), [(1024, 900), (256, 156), (64, 3)])
def test_with_few_descriptors_ours_are_high_and_a_task_that_takes_all_harms_no_measuring(
    start: Start, receiver: Receiver, limit: int, lowest: int
) -> None:
    prefix = ["prlimit", f"--nofile={limit}:{limit}", CELERY]
    with start(arguments=["--concurrency=1"], prefix=prefix) as worker:
        worker.run("noop")
        (reporter,) = reporters_of(worker.pid)
        words = Path(f"/proc/{reporter}/cmdline").read_text().split("\0")
        given = dict(word.split("=", 1) for word in words if "=" in word)
        ours = [int(given[name]) for name in ("--rings", "--page", "--status")]
        assert all(lowest <= fd < limit for fd in ours), ours
        with pytest.raises(OSError, match="Too many open files"):
            worker.run("hold_files", limit)
        for _ in range(5):
            worker.run("noop")
        wait_measured(receiver.received, {"noop": 6, "hold_files": 1})
        wait_answered(receiver.received)
        os.kill(reporter, signal.SIGKILL)
        wait_restarted(worker, reporter, receiver.received)
        worker.run("noop")
        worker.stop()
    assert measured(receiver.received) == {"noop": 7, "hold_files": 1}
    assert exits(receiver.received) == {"shutdown": 1}
    assert losses(receiver.received) == []
    (restarted,) = OURS.findall(worker.log())
    assert re.search(
        rf"the reporter \(process {reporter}\) ended after \d+ s.* is started", restarted
    )
