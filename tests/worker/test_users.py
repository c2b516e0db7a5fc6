"""Workers of an unprivileged user, from the start or by ``--uid``, export what they may read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import ROOT, Start, exits, losses, measured, reporters_of
from tests.worker.namespaces import needs_mounts, reachable

CELERY = str(Path(sys.executable).parent / "celery")
NOBODY = 65_534
FROM_THE_START = f'exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "$0" "$@"'
BY_ITSELF = f'exec "$0" "$@" --uid={NOBODY}'
"""The kernel lets no process read one that has changed its user, not even itself."""


@needs_mounts
@pytest.mark.parametrize(
    ("become", "looked_into", "peaks"),
    [(FROM_THE_START, {"main", "0", "1", "reporter"}, 11), (BY_ITSELF, {"reporter"}, 0)],
    ids=["from the start", "--uid"],
)
def test_a_worker_without_privileges_is_measured_without_what_it_may_not_read(
    start: Start,
    receiver: Receiver,
    tmp_path: Path,
    become: str,
    looked_into: set[str],
    peaks: int,
) -> None:
    script = reachable([Path(sys.prefix), Path(sys.base_prefix), ROOT], tmp_path)
    prefix = ["unshare", "--mount", "sh", "-c", f"{script} && {become}", CELERY]
    with start(arguments=["--concurrency=2"], prefix=prefix) as worker:
        for _ in range(10):
            worker.run("noop")
        worker.run("keep", 64 << 20)
        for pid in (worker.pid, *reporters_of(worker.pid)):
            assert f"Uid:\t{NOBODY}\t" in Path(f"/proc/{pid}/status").read_text()
        lost = worker.send("die", 9)
        wait_until("the loss is counted", lambda: "killed" in exits(receiver.received), 20)
        worker.stop()

    def slots(metric: str) -> set[str]:
        return {
            point.attributes["celery.worker.slot"]
            for point in receiver.received.latest(f"celery.worker.{metric}")
        }

    assert measured(receiver.received) == {"noop": 10, "keep": 1}
    assert exits(receiver.received) == {"killed": 1, "shutdown": 2}
    (event,) = losses(receiver.received)
    assert event.attributes["celery.task.id"] == lost.id
    assert event.attributes["celery.worker.process.rss"] > 10 << 20
    for metric in ("memory", "memory.virtual"):
        assert slots(metric) == {"main", "0", "1", "reporter"}, metric
    # From Linux 6.2 on they can be counted without that right.
    assert slots("open_files") >= looked_into
    for metric in ("memory.unique", "memory.proportional"):
        assert slots(metric) == looked_into, metric
    of_peaks = receiver.received.latest("celery.task.memory.rss.peak")
    assert sum(point.count for point in of_peaks) == peaks
    lines = [line for line in worker.log().splitlines() if "memory reporter" in line]
    assert [f"was lost in tests.worker.app.die [{lost.id}]" in line for line in lines] == [True]
    ours = [line for line in worker.log().splitlines() if "otel_celery_memory" in line]
    assert len([line for line in ours if ": INFO/" not in line]) == 1
    hidden = (
        "peak RSS of a task (Linux hides it from a process that has changed its user, as by --uid)"
    )
    assert (hidden in worker.log()) is (peaks == 0)
