"""Limits from frozen cgroup trees of both versions, with what hides and nests there."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from otel_celery_memory.probes.limits import Limits, read_limits

V1_UNLIMITED = "9223372036854771712"
MIB = 1 << 20
LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max address space         {soft:<20} unlimited            bytes
Max file locks            unlimited            unlimited            locks
"""


class Machine:
    """A frozen machine: /proc with process 41, and a cgroup mount."""

    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        self.cgroup = root / "cgroup"
        (self.proc / "41").mkdir(parents=True)
        self.cgroup.mkdir()
        (self.proc / "meminfo").write_text("MemTotal:       16384000 kB\nMemFree:  1 kB\n")
        (self.proc / "41" / "limits").write_text(LIMITS.format(soft="unlimited"))

    def member_of(self, *lines: str) -> None:
        """The lines of the process's cgroup file."""
        (self.proc / "41" / "cgroup").write_text("".join(line + "\n" for line in lines))

    def v2(self, path: str, used: object, limit: object) -> None:
        """A cgroup v2 directory."""
        directory = self.cgroup / path
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "memory.current").write_text(f"{used}\n")
        (directory / "memory.max").write_text(f"{limit}\n")

    def v1(self, path: str, used: object, limit: object) -> None:
        """A directory of cgroup v1's memory controller."""
        directory = self.cgroup / "memory" / path
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "memory.usage_in_bytes").write_text(f"{used}\n")
        (directory / "memory.limit_in_bytes").write_text(f"{limit}\n")

    def limits(self) -> Limits:
        return read_limits(41, self.proc, self.cgroup)

    def charge_and_limit(self) -> tuple[int | None, int | None]:
        limits = self.limits()
        return limits.cgroup_used_bytes, limits.cgroup_bytes


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_all_limits_of_a_process_are_told_in_bytes(machine: Machine) -> None:
    machine.member_of("0::/app.slice")
    machine.v2("app.slice", 100 * MIB, 512 * MIB)
    (machine.proc / "41" / "limits").write_text(LIMITS.format(soft="4294967296"))
    assert machine.limits() == Limits(
        cgroup_bytes=512 * MIB,
        cgroup_used_bytes=100 * MIB,
        rlimit_as_bytes=4_294_967_296,
        host_bytes=16_384_000 * 1024,
    )


def test_in_v2_the_lowest_limit_of_all_ancestors_holds(machine: Machine) -> None:
    machine.member_of("0::/kube/pod/app")
    machine.v2("kube", 900, 4_000)
    machine.v2("kube/pod", 800, 1_000)
    machine.v2("kube/pod/app", 700, "max")
    assert machine.charge_and_limit() == (700, 1_000)


def test_in_v1_the_lowest_limit_of_all_ancestors_holds(machine: Machine) -> None:
    machine.member_of("5:cpu,cpuacct:/other", "4:memory:/docker/1a2b")
    machine.v1("", 900, V1_UNLIMITED)
    machine.v1("docker", 800, 3_000)
    machine.v1("docker/1a2b", 700, 9_000)
    assert machine.charge_and_limit() == (700, 3_000)


def test_the_memory_controller_may_share_its_line(machine: Machine) -> None:
    machine.member_of("4:cpu,memory:/x")
    machine.v1("x", 1, 2)
    assert machine.charge_and_limit() == (1, 2)


def test_no_limit_anywhere_is_none_and_the_charge_is_told_all_the_same(machine: Machine) -> None:
    machine.member_of("0::/a/b")
    machine.v2("a", 8, "max")
    machine.v2("a/b", 7, "max")
    assert machine.charge_and_limit() == (7, None)
    machine.member_of("4:memory:/a/b")
    machine.v1("a", 8, V1_UNLIMITED)
    machine.v1("a/b", 7, V1_UNLIMITED)
    assert machine.charge_and_limit() == (7, None)


def test_in_a_container_the_mount_itself_is_its_cgroup(machine: Machine) -> None:
    # The path is the host's; inside the container only the container's part is mounted.
    machine.member_of("0::/kubepods/pod1/c1")
    machine.v2("", 70, 90)
    assert machine.charge_and_limit() == (70, 90)
    machine.member_of("0::/")
    assert machine.charge_and_limit() == (70, 90)
    machine.member_of("4:memory:/docker/1a2b")
    machine.v1("", 71, 91)
    assert machine.charge_and_limit() == (71, 91)


@pytest.mark.parametrize("path", ["/../sibling", "/../../elsewhere", "/.."])
def test_a_path_out_of_the_cgroup_namespace_is_the_mount_and_ends(
    machine: Machine, path: str
) -> None:
    machine.member_of(f"0::{path}")
    machine.v2("", 70, 90)
    assert machine.charge_and_limit() == (70, 90)


def test_where_both_versions_are_mounted_the_one_with_memory_is_read(machine: Machine) -> None:
    machine.member_of("4:memory:/x", "1:name=systemd:/x", "0::/x")
    machine.v1("x", 5, 6)
    assert machine.charge_and_limit() == (5, 6)
    machine.member_of("0::/x", "4:memory:/x")
    assert machine.charge_and_limit() == (5, 6)


def test_the_root_of_the_machine_has_no_memory_files_and_so_no_limit(machine: Machine) -> None:
    machine.member_of("0::/")
    assert machine.charge_and_limit() == (None, None)


@pytest.mark.parametrize("content", ["", "lots", "-5", "1e9"])
def test_a_number_that_is_none_is_left_out(machine: Machine, content: str) -> None:
    machine.member_of("0::/x")
    machine.v2("x", 7, content)
    assert machine.charge_and_limit() == (7, None)
    machine.v2("x", content, 9)
    assert machine.charge_and_limit() == (None, None)


def test_a_process_that_is_gone_has_the_host_s_memory_and_no_other_limit(machine: Machine) -> None:
    assert read_limits(42, machine.proc, machine.cgroup) == Limits(host_bytes=16_384_000 * 1024)


@pytest.mark.parametrize("content", ["", "MemTotal:\n", "MemTotal: much kB\n"])
def test_a_meminfo_of_another_form_makes_psutil_answer(machine: Machine, content: str) -> None:
    (machine.proc / "meminfo").write_text(content)
    assert machine.limits() == Limits(host_bytes=psutil.virtual_memory().total)


@pytest.mark.parametrize("content", ["", "Max address space\n", "Max address space unlimited\n"])
def test_a_limits_file_of_another_form_is_no_limit(machine: Machine, content: str) -> None:
    (machine.proc / "41" / "limits").write_text(content)
    assert machine.limits() == Limits(host_bytes=16_384_000 * 1024)
