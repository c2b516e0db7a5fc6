"""Descriptors are moved to high numbers, and known as ours whoever has the number by now."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from otel_celery_memory.probes import descriptors
from otel_celery_memory.probes.descriptors import OwnedFile, moved_high, spare_of


@contextmanager
def soft_limit(files: int) -> Iterator[None]:
    """Run with another soft limit of descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def fd() -> int:
    """The read end of a pipe that holds two bytes; the test closes it."""
    read_end, write_end = os.pipe()
    os.write(write_end, b"ab")
    os.close(write_end)
    return read_end


def test_the_same_open_file_is_found_under_a_high_number_and_the_low_one_is_free(fd: int) -> None:
    with soft_limit(4_096):
        high = moved_high(fd)
    assert high >= 900
    assert os.read(high, 2) == b"ab"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    os.close(high)


def test_it_stays_closed_to_programs_that_are_started(fd: int) -> None:
    high = moved_high(fd)
    assert os.get_inheritable(high) is False
    os.close(high)


def test_under_a_lower_limit_it_goes_near_the_end_of_what_there_is(fd: int) -> None:
    with soft_limit(400):
        high = moved_high(fd)
    assert 300 <= high < 400
    os.close(high)


@pytest.mark.parametrize("files", [64, 199])
def test_where_there_are_few_numbers_it_stays(fd: int, files: int) -> None:
    with soft_limit(files):
        assert moved_high(fd) == fd
    os.close(fd)


def test_where_no_high_number_is_free_it_stays(fd: int) -> None:
    with soft_limit(300):
        taken: list[int] = []
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.dup(fd))
        assert moved_high(fd) == fd
    for each in (fd, *taken):
        os.close(each)


def test_where_the_platform_cannot_move_it_it_stays(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "fcntl", None)
    assert moved_high(fd) == fd
    os.close(fd)


@pytest.fixture(params=["by its mark", "by device and inode"])
def owned(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnedFile]:
    """A file of ours; for systems without marks, too."""
    if request.param == "by device and inode":
        monkeypatch.setattr(descriptors, "GET_MARK", -1)
    owned = OwnedFile(os.open("/proc/self/statm", os.O_RDONLY), descriptors.STATM)
    yield owned
    owned.close()


def test_an_open_file_of_ours_is_known(owned: OwnedFile) -> None:
    assert owned.is_ours()


def test_a_closed_one_is_not_ours(owned: OwnedFile) -> None:
    os.close(owned.fd)
    assert not owned.is_ours()


def test_a_number_that_a_user_s_file_has_by_now_is_not_ours_and_is_not_closed_by_us(
    owned: OwnedFile, tmp_path: Path
) -> None:
    with (tmp_path / "user").open("wb") as file:
        number = owned.fd
        os.dup2(file.fileno(), number)
        assert not owned.is_ours()
        owned.close()
        assert os.fstat(number).st_ino == os.fstat(file.fileno()).st_ino
        os.close(number)


def test_another_file_of_ours_under_the_number_is_not_taken_for_it(owned: OwnedFile) -> None:
    other = OwnedFile(os.open("/proc/self/clear_refs", os.O_WRONLY), descriptors.CLEAR_REFS)
    os.dup2(other.fd, owned.fd)
    assert not owned.is_ours()
    os.close(owned.fd)
    other.close()


def test_it_is_closed_once_and_is_nobody_s_afterwards(owned: OwnedFile) -> None:
    number = owned.fd
    owned.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    assert not owned.is_ours()
    owned.close()


def test_a_spare_descriptor_is_the_same_file_under_a_number_of_its_own_kind() -> None:
    first = moved_high(os.memfd_create("page"))
    spare = spare_of(first)
    assert os.path.sameopenfile(first, spare)
    assert 64 < spare < first
    assert not os.get_inheritable(spare)
    os.close(first)
    os.close(spare)
