"""Limits from frozen cgroup trees of both versions, with what hides and nests there."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from otel_celery_memory.probes.limits import Limits, oom_kill_counter, read_limits, room_bytes
from tests.unit.probes.machine import BAD_NUMBERS, MIB, V1_UNLIMITED, Machine


def limits_of(machine: Machine) -> Limits:
    return read_limits(41, machine.proc, machine.cgroup)


def charge_and_limit(machine: Machine) -> tuple[int | None, int | None]:
    limits = limits_of(machine)
    return limits.cgroup_used_bytes, limits.cgroup_bytes


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_all_limits_of_a_process_are_told_in_bytes(machine: Machine) -> None:
    machine.member_of("0::/app.slice")
    machine.v2(
        "app.slice",
        100 * MIB,
        512 * MIB,
        high=400 * MIB,
        swap__current=7 * MIB,
        swap__max=64 * MIB,
    )
    machine.rlimits(4_294_967_296, 2_147_483_648)
    assert limits_of(machine) == Limits(
        cgroup_bytes=512 * MIB,
        cgroup_used_bytes=100 * MIB,
        rlimit_as_bytes=4_294_967_296,
        host_bytes=16_384_000 * 1024,
        cgroup_high_bytes=400 * MIB,
        cgroup_swap_bytes=64 * MIB,
        cgroup_swap_used_bytes=7 * MIB,
        rlimit_data_bytes=2_147_483_648,
    )


def test_in_v2_the_lowest_limit_of_all_ancestors_holds(machine: Machine) -> None:
    machine.member_of("0::/kube/pod/app")
    machine.v2("kube", 900, 4_000)
    machine.v2("kube/pod", 800, 1_000)
    machine.v2("kube/pod/app", 700, "max")
    assert charge_and_limit(machine) == (700, 1_000)


def test_in_v2_the_controller_may_not_reach_down_to_the_process_s_own_cgroup(
    machine: Machine,
) -> None:
    machine.member_of("0::/user.slice/app/leaf")
    (machine.cgroup / "user.slice" / "app" / "leaf").mkdir(parents=True)
    machine.v2("user.slice", 900, 4_000)
    assert charge_and_limit(machine) == (900, 4_000)


def test_in_v1_the_lowest_limit_of_all_ancestors_holds(machine: Machine) -> None:
    machine.member_of("5:cpu,cpuacct:/other", "4:memory:/docker/1a2b")
    machine.v1("", 900, V1_UNLIMITED)
    machine.v1("docker", 800, 3_000)
    machine.v1("docker/1a2b", 700, 9_000)
    assert charge_and_limit(machine) == (700, 3_000)


def test_the_memory_controller_may_share_its_line(machine: Machine) -> None:
    machine.member_of("4:cpu,memory:/x")
    machine.v1("x", 1, 2)
    assert charge_and_limit(machine) == (1, 2)


def test_no_limit_anywhere_is_none_and_the_charge_is_told_all_the_same(machine: Machine) -> None:
    machine.member_of("0::/a/b")
    machine.v2("a", 8, "max")
    machine.v2("a/b", 7, "max")
    assert charge_and_limit(machine) == (7, None)
    machine.member_of("4:memory:/a/b")
    machine.v1("a", 8, V1_UNLIMITED)
    machine.v1("a/b", 7, V1_UNLIMITED)
    assert charge_and_limit(machine) == (7, None)


def test_in_a_container_the_mount_itself_is_its_cgroup(machine: Machine) -> None:
    # The path is the host's; inside the container only the container's part is mounted.
    machine.member_of("0::/kubepods/pod1/c1")
    machine.v2("", 70, 90)
    assert charge_and_limit(machine) == (70, 90)
    machine.member_of("0::/")
    assert charge_and_limit(machine) == (70, 90)
    machine.member_of("4:memory:/docker/1a2b")
    machine.v1("", 71, 91)
    assert charge_and_limit(machine) == (71, 91)


@pytest.mark.parametrize("path", ["/../sibling", "/../../elsewhere", "/.."])
def test_a_path_out_of_the_cgroup_namespace_is_the_mount_and_ends(
    machine: Machine, path: str
) -> None:
    machine.member_of(f"0::{path}")
    machine.v2("", 70, 90)
    assert charge_and_limit(machine) == (70, 90)


def test_where_both_versions_are_mounted_the_one_with_memory_is_read(machine: Machine) -> None:
    machine.member_of("4:memory:/x", "1:name=systemd:/x", "0::/x")
    machine.v1("x", 5, 6)
    assert charge_and_limit(machine) == (5, 6)
    machine.member_of("0::/x", "4:memory:/x")
    assert charge_and_limit(machine) == (5, 6)


def test_the_root_of_the_machine_has_no_memory_files_and_so_no_limit(machine: Machine) -> None:
    machine.member_of("0::/")
    assert charge_and_limit(machine) == (None, None)


@pytest.mark.parametrize("content", BAD_NUMBERS, ids=range(len(BAD_NUMBERS)))
def test_a_number_that_is_none_is_left_out(machine: Machine, content: str) -> None:
    machine.member_of("0::/x")
    machine.v2("x", 7, content)
    assert charge_and_limit(machine) == (7, None)
    machine.v2("x", content, 9)
    assert charge_and_limit(machine) == (None, None)


def test_a_process_that_is_gone_has_the_host_s_memory_and_no_other_limit(machine: Machine) -> None:
    assert read_limits(42, machine.proc, machine.cgroup) == Limits(host_bytes=16_384_000 * 1024)


@pytest.mark.parametrize("content", ["", "MemTotal:\n", "MemTotal: much kB\n"])
def test_a_meminfo_of_another_form_makes_psutil_answer(machine: Machine, content: str) -> None:
    (machine.proc / "meminfo").write_text(content)
    assert limits_of(machine) == Limits(host_bytes=psutil.virtual_memory().total)


@pytest.mark.parametrize("content", ["", "Max address space\n", "Max address space unlimited\n"])
def test_a_limits_file_of_another_form_is_no_limit(machine: Machine, content: str) -> None:
    (machine.proc / "41" / "limits").write_text(content)
    assert limits_of(machine) == Limits(host_bytes=16_384_000 * 1024)


def test_memory_high_and_swap_are_the_lowest_of_all_ancestors(machine: Machine) -> None:
    machine.member_of("0::/kube/pod/app")
    machine.v2("kube", 900, 4_000, high=3_000, swap__current=9, swap__max=50)
    machine.v2("kube/pod", 800, 1_000, high="max", swap__current=8, swap__max=70)
    machine.v2("kube/pod/app", 700, "max", high=3_500, swap__current=7, swap__max="max")
    limits = limits_of(machine)
    assert limits.cgroup_high_bytes == 3_000
    assert (limits.cgroup_swap_used_bytes, limits.cgroup_swap_bytes) == (7, 50)


def test_v1_counts_swap_together_with_memory(machine: Machine) -> None:
    machine.member_of("4:memory:/docker/1a2b")
    machine.v1("docker/1a2b", 700, 9_000, memsw__usage_in_bytes=760, memsw__limit_in_bytes=12_000)
    limits = limits_of(machine)
    assert (limits.cgroup_swap_used_bytes, limits.cgroup_swap_bytes) == (60, 3_000)


def test_v1_without_a_limit_or_without_accounting_of_swap_tells_none(machine: Machine) -> None:
    machine.member_of("4:memory:/a")
    machine.v1(
        "a", 700, V1_UNLIMITED, memsw__usage_in_bytes=700, memsw__limit_in_bytes=V1_UNLIMITED
    )
    limits = limits_of(machine)
    assert (limits.cgroup_swap_used_bytes, limits.cgroup_swap_bytes) == (0, None)
    machine.member_of("4:memory:/b")
    machine.v1("b", 700, 900)
    limits = limits_of(machine)
    assert (limits.cgroup_swap_used_bytes, limits.cgroup_swap_bytes) == (None, None)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"0::", b":" * 99, b"0::/\0", b"0::/" + b"a/" * 9_000]
)
def test_a_cgroup_file_that_is_garbage_is_no_cgroup_and_raises_nothing(
    machine: Machine, content: bytes
) -> None:
    (machine.proc / "41" / "cgroup").write_bytes(content)
    assert limits_of(machine) == Limits(host_bytes=16_384_000 * 1024)


@pytest.mark.parametrize(
    "name", ["a:b", "a\x0bb\x1c", "a\u2028b\x85", "a b\r", os.fsdecode(b"\xff\xfe")]
)
def test_a_cgroup_may_have_any_name_without_a_slash_or_a_newline(
    machine: Machine, name: str
) -> None:
    (machine.proc / "41" / "cgroup").write_bytes(os.fsencode(f"0::/{name}/leaf\n"))
    machine.v2(f"{name}/leaf", 7, 9)
    assert charge_and_limit(machine) == (7, 9)


def test_of_cgroups_that_are_nested_deeper_than_anybody_s_the_inner_ones_and_the_root_are_looked_at(
    machine: Machine,
) -> None:
    path = "/".join("d" for _ in range(100))
    machine.member_of(f"0::/{path}")
    machine.v2("", 900, 3_000)
    machine.v2("d/" * 35, 800, 2)
    machine.v2("d/" * 40, 800, 4_000)
    machine.v2(path, 700, "max")
    assert charge_and_limit(machine) == (700, 3_000)


def test_half_a_number_at_the_end_of_what_is_read_is_no_number(machine: Machine) -> None:
    machine.member_of("0::/x")
    machine.v2("x", 7, 9)
    lines = "z" * (64 * 1024 - len("oom_kill 12\n")) + "\noom_kill 1234\n"
    (machine.cgroup / "x" / "memory.events").write_text(lines)
    assert oom_kill_counter(41, machine.proc, machine.cgroup)() is None


def test_the_room_below_the_nearest_limit_is_told_in_bytes(machine: Machine) -> None:
    (machine.proc / "meminfo").write_text("MemTotal: 16384000 kB\nMemAvailable: 8192000 kB\n")
    (machine.proc / "41" / "statm").write_text("25600 12800 0 0 0 12800 0\n")
    machine.member_of("0::/a/b")
    machine.v2("a/b", 100 * MIB, 200 * MIB)
    machine.v2("a", 900 * MIB, 1_000 * MIB)

    def room(share: float) -> int | None:
        return room_bytes(41, share, machine.proc, machine.cgroup)

    assert (room(0.9), room(1.0), room(0.5)) == (0, 100 * MIB, -400 * MIB)
    machine.v2("a", 10 * MIB, "max", memory_high=150 * MIB)
    assert room(1.0) == 100 * MIB
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    machine.rlimits(address_space=25_600 * page_bytes + 7 * MIB)
    assert room(1.0) == 7 * MIB
    assert room_bytes(77, 1.0, Path("/nonexistent"), Path("/nonexistent")) is None
