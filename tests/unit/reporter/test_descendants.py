"""Processes that tasks started: whose they are, what they have, which are left behind."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from otel_celery_memory.ipc.records import ProcessUp, TaskFinished
from otel_celery_memory.probes.procfs import TICK_NS
from otel_celery_memory.reporter import descendants as module
from otel_celery_memory.reporter.descendants import (
    LEFT_AFTER_NS,
    LOOK_S,
    Descendants,
    DescendantsSize,
    Run,
    run_that_began,
)
from otel_celery_memory.reporter.state.worker_state import WorkerState
from otel_celery_memory.telemetry.events import DescendantsLeft
from tests.unit.examples import finished, started
from tests.unit.fakes import FakeClock

PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20
S = 1_000_000_000
MAIN, CHILD = 3_000_001, 3_000_002
"""Pids that no process has: pid_max is larger than them, and the machine young."""


class FrozenProc:
    """A /proc whose processes the test makes."""

    def __init__(self, root: Path, *, lists_children: bool) -> None:
        self.root = root
        (root / "self").mkdir()
        self._lists_children = lists_children
        if lists_children:
            (root / "thread-self").mkdir()
            (root / "thread-self" / "children").touch()
        self._children: dict[int, list[int]] = {}

    def process(
        self,
        pid: int,
        parent: int,
        *,
        mib: int = 1,
        start_s: float = 0,
        state: str = "S",
        group: int = MAIN,
        session: int = MAIN,
        unique_mib: int | None = None,
        name: str = "a) b",
        cmdline: str = "",
    ) -> int:
        """A process; its parent lists it."""
        directory = self.root / str(pid)
        (directory / "task" / str(pid)).mkdir(parents=True, exist_ok=True)
        ticks = round(start_s * S) // TICK_NS
        numbers = f"{parent} {group} {session} {'0 ' * 15}{ticks} 0 0"
        (directory / "stat").write_text(f"{pid} ({name}) {state} {numbers}\n")
        pages = 0 if state == "Z" else mib * MIB // PAGE
        # The address space tells a process from its parent, as after an exec.
        (directory / "statm").write_text(f"{pages + pid % 1_000} {pages} 0 0 0 0 0\n")
        (directory / "cmdline").write_text(cmdline)
        if unique_mib is not None:
            (directory / "smaps_rollup").write_text(f"Private_Dirty: {unique_mib * 1024} kB\n")
        children = self._children.setdefault(parent, [])
        if pid not in children:
            children.append(pid)
        self._list(pid)
        self._list(parent)
        return pid

    def end(self, pid: int) -> None:
        """The process is gone; its children are process 1's."""
        directory = self.root / str(pid)
        for each in sorted(directory.rglob("*"), reverse=True):
            each.rmdir() if each.is_dir() else each.unlink()
        directory.rmdir()
        for children in self._children.values():
            if pid in children:
                children.remove(pid)
        for parent in list(self._children):
            self._list(parent)
        for orphan in self._children.pop(pid, []):
            stat = self.root / str(orphan) / "stat"
            stat.write_text(stat.read_text().replace(f"S {pid} ", "S 1 "))

    def hide(self, pid: int) -> None:
        """Its files are gone; its parent still lists it."""
        for name in ("stat", "statm"):
            (self.root / str(pid) / name).unlink()

    def _list(self, pid: int) -> None:
        file = self.root / str(pid) / "task" / str(pid) / "children"
        if self._lists_children and file.parent.exists():
            file.write_text(" ".join(map(str, self._children.get(pid, []))))


@dataclass
class RecordingEmitter:
    """Keeps the state as the real emitter does, and records its calls."""

    state: WorkerState = field(default_factory=WorkerState)
    peaks: list[tuple[str, int]] = field(default_factory=list)
    left: list[DescendantsLeft] = field(default_factory=list)

    def emit_tree_peak(self, record: TaskFinished, peak_bytes: int) -> None:
        self.peaks.append((record.task, peak_bytes))

    def emit_descendants_left(self, left: DescendantsLeft, now_ns: int) -> None:
        self.left.append(left)


class Bench:
    """A worker of a main process and a child, whose /proc the test makes."""

    def __init__(self, root: Path, *, lists_children: bool = True) -> None:
        self.proc = FrozenProc(root, lists_children=lists_children)
        self.clock = FakeClock(100.0)
        self.cpu = FakeClock()
        self.emitter = RecordingEmitter()
        self.descendants = Descendants(
            self.emitter,
            MAIN,
            self.proc.root,
            self.clock,
            self.cpu,
            lambda: 0,
            lambda: int(self.clock() * S),
        )
        self.proc.process(1, 0, group=1, session=1)
        self.proc.process(MAIN, 1, mib=50)
        self.proc.process(CHILD, MAIN, mib=60)
        self.apply_up(MAIN, -1)
        self.apply_up(CHILD, 0)

    def apply_up(self, pid: int, slot: int) -> None:
        self.emitter.state.apply(ProcessUp(pid, 0, slot, 1))

    def start(self, task: str, at_s: float, pid: int = CHILD, rss_bytes: int = 60 * MIB) -> None:
        """A run begins; its id is the task's name and time."""
        task_id = f"{task}-{at_s}"
        self.emitter.state.apply(
            started(pid, task_id, task, time_ns=int(at_s * S), rss_bytes=rss_bytes)
        )

    def finish(
        self, task: str, at_s: float, ended_s: float, pid: int = CHILD, exclusive: int = 1
    ) -> None:
        record = finished(
            pid,
            f"{task}-{at_s}",
            task,
            started_ns=int(at_s * S),
            time_ns=int(ended_s * S),
            start_bytes=60 * MIB,
            peak_bytes=1,
            exclusive=exclusive,
        )
        self.emitter.state.apply(record)
        self.descendants.finished(record)

    def look(self, at_s: float | None = None) -> list[tuple[str, str | None, int, int | None]]:
        """Slot, task, number and MiB of RSS, the largest first."""
        self.clock.now = max(self.clock.now + LOOK_S, at_s or 0)
        self.descendants.look()
        return [
            (size.slot, size.task, size.processes, _mib(size.rss_bytes))
            for size in self.descendants.sizes
        ]


def _mib(size_bytes: int | None) -> int | None:
    return None if size_bytes is None else size_bytes // MIB


@pytest.fixture(params=["listed by the kernel", "found among all"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return Bench(tmp_path, lists_children=request.param == "listed by the kernel")


def test_a_process_and_what_it_started_are_of_the_run_in_flight(bench: Bench) -> None:
    bench.start("app.render", 90)
    bench.proc.process(3_000_201, CHILD, mib=30, start_s=95, unique_mib=20)
    bench.proc.process(3_000_202, 3_000_201, mib=5, start_s=96, unique_mib=4)
    assert bench.look() == [("0", "app.render", 2, 35)]
    assert bench.descendants.sizes[0].unique_bytes == 24 * MIB
    bench.proc.end(3_000_202)
    bench.proc.end(3_000_201)
    assert bench.look() == [("0", None, 0, 0)]


def test_the_pool_and_the_reporter_are_no_descendants(bench: Bench) -> None:
    bench.proc.process(os.getpid(), CHILD)
    bench.proc.process(3_000_203, MAIN, start_s=99)  # of the pool, and not yet known
    assert bench.look() == []
    bench.apply_up(3_000_203, 1)
    bench.proc.process(3_000_204, MAIN, start_s=1, cmdline="python\0-c\0from billiard.forkserver")
    assert bench.look(150) == []


def test_what_main_started_beside_the_pool_is_known_when_it_can_be_no_child_of_the_pool(
    bench: Bench,
) -> None:
    bench.proc.process(3_000_203, MAIN, start_s=99, mib=7)
    assert bench.look(108) == []
    assert bench.look(110) == [("main", None, 1, 7)]


def test_a_child_of_the_pool_that_is_known_very_late_is_no_descendant_any_more(
    bench: Bench,
) -> None:
    bench.proc.process(3_000_203, MAIN, start_s=50, mib=7)
    assert bench.look() == [("main", None, 1, 7)]
    bench.apply_up(3_000_203, 1)
    assert bench.look() == [("main", None, 0, 0)]


def test_where_main_runs_tasks_its_children_are_theirs_at_once(bench: Bench) -> None:
    bench.start("app.render", 90, pid=MAIN)
    bench.proc.process(3_000_203, MAIN, start_s=99, mib=7)
    assert bench.look() == [("main", "app.render", 1, 7)]


def test_a_child_between_fork_and_exec_does_not_count_its_parent_s_memory(bench: Bench) -> None:
    bench.start("app.render", 90)
    bench.proc.process(3_000_201, CHILD, mib=60, start_s=95)
    bench.proc.process(3_000_202, CHILD, mib=60, start_s=100.95)  # most are sooner in their own
    statm = bench.proc.root / str(3_000_201) / "statm"
    statm.write_text((bench.proc.root / str(CHILD) / "statm").read_text())
    assert bench.look() == []
    bench.proc.process(3_000_201, CHILD, mib=3, start_s=95)
    assert bench.look() == [("0", "app.render", 2, 63)]


def test_what_loses_its_parent_stays_what_it_was(bench: Bench) -> None:
    bench.start("app.render", 90)
    bench.proc.process(3_000_201, CHILD, start_s=95)
    bench.proc.process(3_000_202, 3_000_201, mib=5, start_s=96, group=3_000_201, session=3_000_201)
    bench.look()
    bench.proc.end(3_000_201)
    assert bench.look() == [("0", "app.render", 1, 5)]
    bench.proc.process(3_000_203, 3_000_202, mib=2, start_s=102, group=3_000_201, session=3_000_201)
    assert bench.look() == [("0", "app.render", 2, 7)]
    # Another process has its pid.
    bench.proc.process(3_000_202, 1, mib=9, start_s=103, group=9, session=9)
    bench.proc.end(3_000_203)
    assert bench.look() == [("0", None, 0, 0)]


def test_an_orphan_that_nobody_saw_is_found_in_the_worker_s_session(bench: Bench) -> None:
    bench.start("app.render", 90)
    bench.proc.process(3_000_205, 1, mib=5, start_s=95)
    assert bench.look() == [("0", "app.render", 1, 5)]


def test_an_orphan_in_the_worker_s_group_is_found_though_an_init_is_of_its_session(
    bench: Bench,
) -> None:
    for pid, group in ((1, 1), (MAIN, MAIN), (CHILD, MAIN)):
        bench.proc.process(pid, {1: 0, MAIN: 1, CHILD: MAIN}[pid], group=group, session=1)
    bench.start("app.render", 90)
    bench.proc.process(3_000_205, 1, mib=5, start_s=95, session=1)
    assert bench.look() == [("0", "app.render", 1, 5)]


def test_an_orphan_that_no_run_can_have_begun_is_of_main(bench: Bench) -> None:
    bench.start("app.render", 97)
    bench.proc.process(3_000_205, 1, mib=5, start_s=95)
    assert bench.look() == [("main", None, 1, 5)]


@pytest.mark.parametrize(
    ("group", "session", "start_s", "parent"),
    [
        (9, 9, 95, 1),  # of another session
        (MAIN, 9, 1, 1),  # in the group, from its very start: a pipeline
        (MAIN, 9, 95, 3_000_301),  # in the group, as what started it, which is a part of a pipeline
    ],
)
def test_what_may_be_somebody_else_s_is_not_found(
    bench: Bench, group: int, session: int, start_s: float, parent: int
) -> None:
    bench.proc.process(3_000_301, 1, start_s=1, group=MAIN, session=9)
    bench.proc.process(3_000_205, parent, start_s=start_s, group=group, session=session)
    assert bench.look() == []


def test_what_is_in_the_session_of_a_descendant_that_has_ended_is_found(bench: Bench) -> None:
    bench.start("app.render", 90)
    bench.proc.process(3_000_201, CHILD, start_s=95, group=3_000_201, session=3_000_201)
    bench.look()
    bench.proc.end(3_000_201)
    bench.proc.process(3_000_206, 1, mib=5, start_s=102, group=3_000_201, session=3_000_201)
    assert bench.look(107) == [("0", "app.render", 1, 5)]


def test_zombies_count_nothing(bench: Bench) -> None:
    bench.start("app.render", 90)
    bench.proc.process(3_000_201, CHILD, start_s=95, state="Z")
    assert bench.look() == []


def test_a_pid_that_is_another_s_by_now_is_not_taken_for_a_child(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.proc.process(3_000_201, CHILD, start_s=95)
    bench.proc.process(3_000_201, 1, start_s=99, group=9, session=9)
    assert bench.look() == []


def test_where_one_is_hidden_the_sums_of_its_slot_are_absent(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.start("app.render", 90)
    bench.proc.process(3_000_201, CHILD, mib=5, start_s=95)
    bench.proc.process(os.getppid(), CHILD)
    bench.proc.hide(os.getppid())  # the kernel says that it is there
    assert bench.look() == [("0", "app.render", 1, None)]


def test_where_unique_memory_of_one_may_not_be_read_the_sum_is_absent(bench: Bench) -> None:
    bench.start("app.render", 90)
    bench.proc.process(3_000_201, CHILD, mib=5, start_s=95, unique_mib=3)
    bench.proc.process(3_000_202, CHILD, mib=5, start_s=95)
    assert bench.look() == [("0", "app.render", 2, 10)]
    assert bench.descendants.sizes[0].unique_bytes is None


def test_of_more_than_there_is_room_for_the_sums_are_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DESCENDANTS_MAX", 20)
    bench = Bench(tmp_path)
    bench.start("app.render", 90)
    for pid in range(4_000_000, 4_000_021):
        bench.proc.process(pid, CHILD, start_s=95)
    assert bench.look() == [("0", "app.render", 20, None)]


@pytest.mark.parametrize("content", ["", "x", "7 (a) S", "7 (a) S 1 x 1" + " 0" * 20, "\0" * 9_000])
def test_whatever_the_files_hold_nothing_is_raised(bench: Bench, content: str) -> None:
    bench.proc.process(3_000_201, CHILD, start_s=95)
    for name in ("stat", "statm", "smaps_rollup", "cmdline"):
        (bench.proc.root / str(3_000_201) / name).write_text(content)
    (bench.proc.root / str(CHILD) / "task" / str(CHILD) / "children").write_text(content)
    assert bench.look() == []


def test_a_look_is_paced_by_what_it_costs(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    looks: list[float] = []
    processes = bench.emitter.state.processes

    class Costly(dict[int, object]):
        def items(self) -> object:  # type: ignore[override]
            looks.append(bench.clock())
            bench.cpu.move(0.05)
            return processes.items()

    bench.emitter.state.processes = Costly()  # type: ignore[assignment]
    for _ in range(40):
        bench.look()
    # Half a percent of one core.
    assert [later - earlier for earlier, later in pairwise(looks)] == [10] * 3


def test_the_peak_of_a_run_is_its_process_s_and_its_descendants_together(bench: Bench) -> None:
    bench.start("app.render", 90)
    for mib in (10, 40, 20):
        bench.proc.process(3_000_201, CHILD, mib=mib, start_s=95)
        bench.look()
    bench.proc.process(CHILD, MAIN, mib=75)
    bench.look()
    bench.proc.end(3_000_201)
    bench.look()
    bench.finish("app.render", 90, 107)
    # 60 and 40, less the 60 at its start; 75 and 20 are less.
    assert bench.emitter.peaks == [("app.render", 40 * MIB)]
    bench.start("app.render", 108)
    bench.look()
    bench.finish("app.render", 108, 110)
    assert len(bench.emitter.peaks) == 1


def test_a_run_that_shared_its_process_has_no_peak(bench: Bench) -> None:
    bench.start("app.render", 90)
    bench.proc.process(3_000_201, CHILD, start_s=95)
    bench.look()
    bench.finish("app.render", 90, 101, exclusive=0)
    assert bench.emitter.peaks == []


def _after(ended_s: float) -> float:
    return ended_s + LEFT_AFTER_NS / S


def test_what_still_runs_when_its_run_has_ended_is_told_again_when_it_has_doubled(
    bench: Bench,
) -> None:
    bench.start("app.render", 90)
    bench.proc.process(3_000_201, CHILD, mib=20, start_s=95, unique_mib=17, name="chrome")
    bench.look()
    bench.finish("app.render", 90, 102)
    bench.look(_after(102) - 1)
    assert bench.emitter.left == []
    bench.look(_after(102))
    bench.look()
    assert bench.emitter.left == [
        DescendantsLeft(
            "0", "app.render", "app.render-90", 3_000_201, "chrome", 1, 20 * MIB, 17 * MIB, 5.0
        )
    ]
    assert bench.descendants.sizes == (
        DescendantsSize("0", "app.render", 1, 20 * MIB, 17 * MIB, 1),
    )
    for number, ended_s in enumerate((120, 130, 140)):
        bench.start("app.render", ended_s - 5)
        bench.proc.process(
            3_000_210 + number, CHILD, mib=20, start_s=ended_s - 3, unique_mib=17, name="chrome"
        )
        bench.look(ended_s)
        bench.finish("app.render", ended_s - 5, ended_s)
        bench.look(_after(ended_s))
    assert [left.processes for left in bench.emitter.left] == [1, 2, 4]
    assert bench.descendants.left_bytes == {"app.render": 4 * 17 * MIB}
    for pid in (3_000_201, 3_000_210, 3_000_211, 3_000_212):
        bench.proc.end(pid)
    bench.look()
    assert bench.descendants.left_bytes == {"app.render": 0}


def test_what_is_left_behind_where_unique_memory_may_not_be_read_is_rss(bench: Bench) -> None:
    bench.start("app.render", 90)
    bench.proc.process(3_000_201, CHILD, mib=3, start_s=95)
    bench.look()
    bench.finish("app.render", 90, 102)
    bench.look(_after(102) - 1)
    assert bench.descendants.left_bytes == {}
    bench.look(_after(102))
    assert bench.descendants.left_bytes == {"app.render": 3 * MIB}


def test_little_that_is_left_behind_is_not_told(bench: Bench) -> None:
    bench.start("app.render", 90)
    bench.proc.process(3_000_201, CHILD, mib=15, start_s=95)
    bench.look()
    bench.finish("app.render", 90, 102)
    bench.look(_after(102))
    assert bench.emitter.left == []
    assert bench.descendants.sizes[0].left == 1


def test_a_run_that_died_has_ended_and_its_slot_stays(bench: Bench) -> None:
    bench.start("app.render", 90)
    bench.proc.process(3_000_201, CHILD, mib=20, start_s=95)
    bench.look()
    bench.proc.end(CHILD)
    bench.emitter.state.gone(CHILD, 101 * S)
    bench.look()
    bench.look(_after(103))
    assert [(left.slot, left.task) for left in bench.emitter.left] == [("0", "app.render")]


def test_a_run_that_had_ended_before_the_look_is_known_when_its_end_is_read(bench: Bench) -> None:
    bench.start("app.next", 100)
    bench.proc.process(3_000_201, CHILD, start_s=95)
    assert bench.look() == [("0", None, 1, 1)]
    bench.finish("app.render", 90, 99)
    assert bench.look() == [("0", "app.render", 1, 1)]
    assert bench.descendants.sizes[0].left == 1


def _run(task: str, started_s: float, ended_s: float | None, task_id: str = "1") -> Run:
    ended_ns = None if ended_s is None else int(ended_s * S)
    return Run(task, task_id, int(started_s * S), ended_ns)


TICK_S = TICK_NS / S


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([], None),
        ([_run("a", 4, 6)], "a"),
        ([_run("a", 4, None)], "a"),
        ([_run("a", 4, 4.5), _run("b", 5.5, None)], None),
        # It began within the tick in which the process started.
        ([_run("a", 5 + TICK_S / 2, None)], "a"),
        ([_run("a", 4, 5 + TICK_S / 2), _run("b", 5 + TICK_S / 2, None)], None),
        ([_run("a", 4, 5 - TICK_S / 10), _run("b", 4.9, None)], "b"),
        # Threads run two at once.
        ([_run("a", 4, 6), _run("b", 4, None)], None),
    ],
)
def test_a_process_is_of_the_run_in_which_it_started_or_of_none(
    runs: list[Run], expected: str | None
) -> None:
    found = run_that_began(5 * S, runs)
    assert (found and found.task) == expected


def test_of_two_runs_that_took_turns_it_is_the_one_whose_task_starts_processes(
    bench: Bench,
) -> None:
    both = [_run("a", 4, 5 + TICK_S / 2), _run("b", 5 + TICK_S / 2, None)]
    assert run_that_began(5 * S, both, ["b", "c"]) == both[1]
    assert run_that_began(5 * S, both, ["a", "b"]) is None
    # Of two that run at once in threads, either may have begun its first.
    assert run_that_began(5 * S, [_run("a", 4, 6), _run("b", 4, 6)], ["b"]) is None
    bench.start("app.noop", 80)
    bench.finish("app.noop", 80, 90 + TICK_S / 4)
    bench.start("app.render", 90 + TICK_S / 2)
    bench.proc.process(3_000_201, CHILD, start_s=90)
    assert bench.look() == [("0", None, 1, 1)]
    bench.proc.process(3_000_202, CHILD, start_s=91)
    bench.look()
    assert bench.look() == [("0", "app.render", 2, 2)]


def test_of_several_runs_of_one_task_the_task_is_known_and_not_the_run() -> None:
    both = [_run("a", 4, 6, "1"), _run("a", 4, 7, "2")]
    assert run_that_began(5 * S, both) == Run("a", "", 4 * S, 7 * S)
    assert run_that_began(5 * S, [*both, _run("a", 4, None, "3")]) == Run("a", "", 4 * S, None)


def test_where_there_is_no_proc_there_are_none(tmp_path: Path) -> None:
    descendants = Descendants(RecordingEmitter(), MAIN, tmp_path / "none", boot_ns=lambda: 0)
    descendants.look()
    assert descendants.sizes == ()
