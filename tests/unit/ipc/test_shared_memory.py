"""Shared memory whose descriptors a task takes away: shared again, and nobody's file is closed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.status_page import StatusPage


@pytest.fixture(params=[ControlPage, StatusPage])
def page(request: pytest.FixtureRequest) -> Iterator[ControlPage | StatusPage]:
    made: ControlPage | StatusPage = request.param.create()
    yield made
    made.close()


def test_a_page_whose_descriptor_was_closed_is_shared_again_by_the_map_s_own(
    page: ControlPage | StatusPage,
) -> None:
    inode = os.fstat(page.fd).st_ino
    os.close(page.fd)
    assert os.fstat(page.fd).st_ino == inode
    assert not os.get_inheritable(page.fd)


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
