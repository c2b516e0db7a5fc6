"""Descriptors are moved to numbers that nobody else gets."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from otel_celery_memory.probes import descriptors
from otel_celery_memory.probes.descriptors import moved_high


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
