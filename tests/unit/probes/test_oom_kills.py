"""How many OOM kills a cgroup has seen, from frozen trees of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_celery_memory.probes.limits import oom_kill_counter
from tests.unit.probes.machine import BAD_NUMBERS, Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_oom_kills_are_counted_by_the_process_s_own_cgroup_of_either_version(
    machine: Machine,
) -> None:
    machine.member_of("0::/app")
    machine.v2("app", 1, 2, events="low 0\nhigh 12\nmax 40\noom 6\noom_kill 5\noom_group_kill 0")
    assert oom_kill_counter(41, machine.proc, machine.cgroup)() == 5
    machine.member_of("4:memory:/app")
    machine.v1("app", 1, 2, oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 3")
    assert oom_kill_counter(41, machine.proc, machine.cgroup)() == 3


def test_they_can_be_asked_for_after_the_process_is_gone(machine: Machine) -> None:
    machine.member_of("0::/app")
    machine.v2("app", 1, 2, events="oom_kill 5")
    count = oom_kill_counter(41, machine.proc, machine.cgroup)
    (machine.proc / "41" / "cgroup").unlink()
    machine.v2("app", 1, 2, events="oom_kill 6")
    assert count() == 6


@pytest.mark.parametrize("events", BAD_NUMBERS, ids=range(len(BAD_NUMBERS)))
def test_without_a_count_in_the_cgroup_the_machine_s_is_read(machine: Machine, events: str) -> None:
    machine.member_of("0::/app")
    machine.v2("app", 1, 2, events=f"oom_kill {events}")
    assert oom_kill_counter(41, machine.proc, machine.cgroup)() is None
    (machine.proc / "vmstat").write_text("nr_free_pages 7\noom_kill 11\n")
    assert oom_kill_counter(41, machine.proc, machine.cgroup)() == 11
