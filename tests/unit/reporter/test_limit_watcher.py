"""What the watcher reads of the limits of a frozen machine, and what it emits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from otel_celery_memory.ipc.records import MAIN_SLOT, ProcessUp
from otel_celery_memory.probes.procfs import ProcessSize
from otel_celery_memory.reporter.limits import LimitUsage, LimitWatcher, Usage
from otel_celery_memory.reporter.state.worker_state import WorkerState
from tests.unit.fakes import FakeClock
from tests.unit.probes.machine import MIB, Machine

MAIN, CHILD = 41, 42
SIZES = {
    MAIN: ProcessSize(50 * MIB, 300 * MIB, 60 * MIB),
    CHILD: ProcessSize(90 * MIB, 310 * MIB, 70 * MIB),
}
SLOTS: dict[int, int | None] = {MAIN: MAIN_SLOT, CHILD: 0}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.rlimits(pid=CHILD)
    return made


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(100.0)


def limit_usage(
    machine: Machine, clock: FakeClock, max_memory_bytes: int | None = None
) -> LimitUsage:
    return LimitUsage(MAIN, max_memory_bytes, machine.proc, machine.cgroup, clock)


def test_the_worker_s_cgroups_and_the_machine_are_used_by_all_of_it(
    machine: Machine, clock: FakeClock
) -> None:
    machine.member_of("0::/pod/app")
    # Page cache that is given back first is no pressure.
    stat = f"anon 5\ninactive_file {100 * MIB}\nactive_file 7"
    machine.v2("pod", 800 * MIB, 1_000 * MIB, stat=stat)
    machine.v2("pod/app", 700 * MIB, "max", high=900 * MIB, stat=stat)
    (machine.proc / "meminfo").write_text("MemTotal: 4000 kB\nMemAvailable: 1000 kB\n")
    assert limit_usage(machine, clock).usages({}, {}) == [
        Usage("cgroup_high", None, 600 * MIB, 900 * MIB),
        Usage("cgroup", None, 700 * MIB, 1_000 * MIB),
        Usage("host", None, 3_000 * 1024, 4_000 * 1024),
    ]


def test_each_process_has_rlimits_and_children_have_max_memory_per_child(
    machine: Machine, clock: FakeClock
) -> None:
    machine.rlimits(address_space=400 * MIB, pid=MAIN)
    machine.rlimits(data=80 * MIB, pid=CHILD)
    assert limit_usage(machine, clock, 100 * MIB).usages(SIZES, SLOTS) == [
        Usage("rlimit_as", MAIN, 300 * MIB, 400 * MIB),
        Usage("rlimit_data", CHILD, 70 * MIB, 80 * MIB),
        Usage("max_memory_per_child", CHILD, 90 * MIB, 100 * MIB),
    ]


def test_limits_that_change_are_seen_after_a_while(machine: Machine, clock: FakeClock) -> None:
    room = limit_usage(machine, clock)
    assert room.usages(SIZES, SLOTS) == []
    machine.rlimits(data=80 * MIB, pid=CHILD)
    assert room.usages(SIZES, SLOTS) == []
    clock.move(15)
    assert room.usages(SIZES, SLOTS) == [Usage("rlimit_data", CHILD, 70 * MIB, 80 * MIB)]


def test_a_machine_without_readings_has_no_limits(tmp_path: Path, clock: FakeClock) -> None:
    room = LimitUsage(MAIN, None, tmp_path / "proc", tmp_path / "cgroup", clock)
    assert room.usages(SIZES, SLOTS) == []


@dataclass
class Scene:
    """A watcher of a machine, with what it emitted."""

    machine: Machine
    clock: FakeClock
    cpu_clock: FakeClock = field(default_factory=FakeClock)
    check_takes_s: float = 0.0
    check_uses_s: float = 0.0
    emitted: list[Usage] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    noted: list[float] = field(default_factory=list)
    state: WorkerState = field(default_factory=WorkerState)

    def emit_pressure(self, usage: Usage, now_ns: int) -> None:
        self.emitted.append(usage)

    def limit_watcher(self) -> LimitWatcher:
        emitter: Any = self
        for pid, slot in SLOTS.items():
            assert slot is not None
            self.state.apply(ProcessUp(pid, 0, slot, 1))
        room = limit_usage(self.machine, self.clock)
        return LimitWatcher(
            self.sizes,
            room,
            emitter,
            lambda: self.sent.append(len(self.emitted)),
            lambda: self.noted.append(self.clock()),
            self.clock,
            self.cpu_clock,
        )

    def sizes(self) -> dict[int, ProcessSize]:
        self.clock.move(self.check_takes_s)
        self.cpu_clock.move(self.check_uses_s)
        return SIZES


def test_an_episode_is_emitted_and_sent_once_and_the_next_check_comes_sooner(
    machine: Machine, clock: FakeClock
) -> None:
    scene = Scene(machine, clock)
    limit_watcher = scene.limit_watcher()
    limit_watcher.check()
    assert (scene.emitted, scene.sent, limit_watcher.due_s) == ([], [], 100.5)
    assert scene.state.processes[CHILD].rss_bytes == 90 * MIB
    assert scene.noted == [100.0]
    machine.member_of("0::/app")
    machine.v2("app", 970 * MIB, 1_000 * MIB)
    clock.move(15)
    for _ in range(3):
        limit_watcher.check()
    usage = Usage("cgroup", None, 970 * MIB, 1_000 * MIB)
    assert (scene.emitted, scene.sent) == ([usage], [1])
    assert limit_watcher.due_s == pytest.approx(115.05)


def test_relief_is_a_line_in_the_log(
    machine: Machine, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    limit_watcher = Scene(machine, clock).limit_watcher()
    machine.member_of("0::/app")
    for used in (970, 500, 500):
        machine.v2("app", used * MIB, 1_000 * MIB)
        clock.move(16)
        limit_watcher.check()
    assert caplog.messages == [
        "otel_celery_memory: less than 80 % of cgroup are used again, after 16 s"
    ]


def test_the_state_is_saved_once_a_second_and_when_a_limit_is_near(
    machine: Machine, clock: FakeClock
) -> None:
    scene = Scene(machine, clock)
    limit_watcher = scene.limit_watcher()
    for _ in range(7):
        limit_watcher.check()
        clock.move(0.25)
    assert scene.noted == [100.0, 101.0]
    machine.rlimits(data=71 * MIB, pid=CHILD)
    clock.move(13.5)
    for _ in range(3):
        limit_watcher.check()
        clock.move(0.25)
    assert scene.noted == [100.0, 101.0, 115.25]


def test_a_check_that_waits_for_a_busy_machine_is_followed_soon(
    machine: Machine, clock: FakeClock
) -> None:
    scene = Scene(machine, clock, check_takes_s=5.0, check_uses_s=0.001)
    limit_watcher = scene.limit_watcher()
    limit_watcher.check()
    assert limit_watcher.due_s == clock.now + 1.0


def test_checks_use_a_fiftieth_of_a_core_at_most(machine: Machine, clock: FakeClock) -> None:
    scene = Scene(machine, clock, check_takes_s=0.1, check_uses_s=0.05)
    limit_watcher = scene.limit_watcher()
    limit_watcher.check()
    assert limit_watcher.due_s == pytest.approx(clock.now + 2.5)


def test_a_check_that_fails_is_followed_by_another(machine: Machine, clock: FakeClock) -> None:
    scene = Scene(machine, clock)
    limit_watcher = scene.limit_watcher()

    def fail(usage: Usage, now_ns: int) -> None:
        raise RuntimeError("an emitter in trouble")

    scene.emit_pressure = fail  # type: ignore[method-assign]
    machine.member_of("0::/app")
    machine.v2("app", 950 * MIB, 1_000 * MIB)
    with pytest.raises(RuntimeError, match="in trouble"):
        limit_watcher.check()
    assert limit_watcher.due_s > clock.now
