"""What the next start of a node recovers of a worker that was killed with its reporter."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_celery_memory.ipc.records import MAIN_SLOT, ProcessDown, ProcessUp
from otel_celery_memory.reporter.last_state import LastState, LastStateFile, NoLastState
from otel_celery_memory.reporter.state.exits import OomKills
from otel_celery_memory.reporter.state.worker_state import WorkerState
from otel_celery_memory.telemetry.events import LostProcess, ProcessSnapshot
from tests.unit.examples import started

MAIN, CHILD, RECYCLED = 10, 11, 12
CGROUP = "/sys/fs/cgroup:5"


def last_state(
    directory: Path,
    state: WorkerState,
    *,
    main_started: int | None = 700,
    cgroup: str = CGROUP,
    there: dict[int, int] | None = None,
) -> LastState:
    """Of a worker whose main process has pid 10; `there`: the starts of processes that are."""
    file = LastStateFile(directory, "celery@box")
    return LastState(
        file, state, (MAIN, main_started), cgroup, (there or {}).get, lambda task_id: 4
    )


def noted(directory: Path, *, main_started: int | None = 700) -> WorkerState:
    """A worker with a main process, a child in a task and one that has said goodbye."""
    oom = OomKills(2)
    oom.update(2, 1)
    state = WorkerState(oom)
    state.apply(ProcessUp(MAIN, 0, MAIN_SLOT, 5_000))
    state.apply(ProcessUp(CHILD, 0, 0, 6_000))
    state.apply(ProcessUp(RECYCLED, 0, 1, 6_000))
    state.apply(started(CHILD, "id-1", time_ns=1_000_000_000, rss_bytes=6_500))
    state.apply(ProcessDown(RECYCLED, 0, 1, 155, 6_000, None, "max_tasks", ""))
    last_state(directory, state, main_started=main_started).save()
    return state


def successor(directory: Path, **options: object) -> LastState:
    return last_state(directory, WorkerState(), **options)  # type: ignore[arg-type]


def reasons(found: list[tuple[LostProcess, int]]) -> list[tuple[str, str, int | None]]:
    return [(lost.process.slot, lost.reason, lost.oom_kills) for lost, _ in found]


def test_each_process_is_recovered_with_its_last_state(tmp_path: Path) -> None:
    noted(tmp_path)
    (main, _), (child, seen_ns) = successor(tmp_path).recover(2)
    assert child == LostProcess(
        ProcessSnapshot(
            slot="0",
            pid=CHILD,
            rss_bytes=6_500,
            rss_peak_bytes=6_500,
            task="app.task",
            task_id="id-1",
            task_age_s=round((seen_ns - 1_000_000_000) / 1e9, 3),
            task_rss_start_bytes=6_500,
        ),
        "killed",
        None,
        0,
        recovered=True,
        repeated=5,
    )
    assert (main.process.slot, main.process.task, main.reason) == ("main", None, "killed")


@pytest.mark.parametrize(
    ("oom_kills", "cgroup", "expected"),
    [
        (3, CGROUP, [("main", "oom_kill", 1), ("0", "killed", 1)]),
        (9, CGROUP, [("main", "oom_kill", 7), ("0", "oom_kill", 7)]),
        (1, CGROUP, [("main", "killed", 0), ("0", "killed", 0)]),
        (None, CGROUP, [("main", "killed", None), ("0", "killed", None)]),
        # A new container's cgroup has seen nothing.
        (9, "/sys/fs/cgroup:6", [("main", "killed", None), ("0", "killed", None)]),
        (9, "", [("main", "killed", None), ("0", "killed", None)]),
    ],
)
def test_the_kernel_s_kills_since_then_are_claimed_where_the_cgroup_is_the_same(
    tmp_path: Path, oom_kills: int | None, cgroup: str, expected: list[tuple[str, str, int | None]]
) -> None:
    noted(tmp_path)
    assert reasons(successor(tmp_path, cgroup=cgroup).recover(oom_kills)) == expected


def test_after_discard_nothing_is_recovered(tmp_path: Path) -> None:
    state = noted(tmp_path)
    last_state(tmp_path, state).discard()
    assert successor(tmp_path).recover(2) == []


def test_a_worker_that_still_runs_is_not_recovered(tmp_path: Path) -> None:
    noted(tmp_path)
    assert successor(tmp_path, there={MAIN: 700}).recover(2) == []


def test_its_pid_may_belong_to_another_process_now(tmp_path: Path) -> None:
    noted(tmp_path)
    assert len(successor(tmp_path, there={MAIN: 701}).recover(2)) == 2


def test_where_starts_cannot_be_read_the_worker_is_taken_to_be_gone(tmp_path: Path) -> None:
    noted(tmp_path, main_started=None)
    assert len(successor(tmp_path).recover(2)) == 2


def test_without_a_directory_nothing_is_kept(tmp_path: Path) -> None:
    nothing = NoLastState()
    nothing.save()
    nothing.discard()
    assert (nothing.recover(1), list(tmp_path.iterdir())) == ([], [])
