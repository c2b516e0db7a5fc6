"""Shared memory whose descriptors a task takes away: shared again, and nobody's file is closed."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.shared_memory import mapped
from otel_celery_memory.ipc.status_page import StatusPage


@pytest.fixture(params=[ControlPage, StatusPage])
def page(request: pytest.FixtureRequest) -> Iterator[ControlPage | StatusPage]:
    made: ControlPage | StatusPage = request.param.create()
    yield made
    made.close()


def test_a_page_whose_descriptor_was_closed_is_shared_again_by_the_spare_one(
    page: ControlPage | StatusPage,
) -> None:
    inode = os.fstat(page.fd).st_ino
    os.close(page.fd)
    assert os.fstat(page.fd).st_ino == inode
    assert not os.get_inheritable(page.fd)


def test_there_is_a_spare_descriptor_again_when_one_was_closed(
    page: ControlPage | StatusPage,
) -> None:
    inode = os.fstat(page.fd).st_ino
    for _ in range(3):
        os.close(page.fd)
    assert os.fstat(page.fd).st_ino == inode


def test_what_is_mapped_takes_no_descriptor_and_is_what_the_file_contains() -> None:
    fd = os.memfd_create("memory")
    os.ftruncate(fd, 2 * mmap.PAGESIZE)
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    first, second = mapped(fd, 2 * mmap.PAGESIZE), mapped(fd, mmap.PAGESIZE, mmap.PAGESIZE)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
    os.pwrite(fd, b"there", mmap.PAGESIZE)
    assert second[:5] == b"there"
    second[:4] = b"here"
    assert first[mmap.PAGESIZE : mmap.PAGESIZE + 5] == b"heree"
    assert len(second) == mmap.PAGESIZE
    first.close()
    second.close()
    os.close(fd)


def test_what_cannot_be_mapped_is_an_error() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        mapped(10**6, mmap.PAGESIZE)


def test_no_map_is_greater_than_its_file_as_who_touches_the_rest_dies() -> None:
    fd = os.memfd_create("memory")
    os.ftruncate(fd, mmap.PAGESIZE)
    with pytest.raises(ValueError, match="greater than the file"):
        mapped(fd, mmap.PAGESIZE, mmap.PAGESIZE)
    os.close(fd)


TAKEN_AWAY = """
import contextlib, os
import subprocess
import sys
from otel_celery_memory.ipc.status_page import StatusPage

page = StatusPage.create()
page.write({"still": "there"})
taken = []
for name in os.listdir("/proc/self/fd"):
    with contextlib.suppress(OSError):
        if os.readlink(f"/proc/self/fd/{name}").startswith("/memfd:"):
            taken.append(int(name))
assert len(taken) == 2
stranger = os.open(os.devnull, os.O_RDONLY)
for number in taken:
    os.dup2(stranger, number)
try:
    print(page.fd)
except OSError as error:
    print(error)
assert page.read() == {"still": "there"}
page.close()
del page
for number in taken:
    assert os.fstat(number).st_rdev == os.fstat(stranger).st_rdev
"""


def test_a_page_whose_descriptors_were_all_taken_cannot_be_shared_and_closes_nobody_s_file() -> (
    None
):
    done = subprocess.run(
        [sys.executable, "-c", TAKEN_AWAY], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (
        "a task has closed the descriptors of shared memory\n",
        "",
    )
