"""Tasks that take descriptors of others for their own."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.hostile.scenarios import hostile

_KEPT: list[int] = []


def _close_kept() -> None:
    while _KEPT:
        with suppress(OSError):
            os.close(_KEPT.pop())


def _raise_soft_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))


@hostile(undo=_close_kept)
def closes_unknown_descriptors_and_opens_files(here: str) -> int:
    """Daemonizing code does so; what is written to a number that was kept lands in a file."""
    os.closerange(40, 65536)
    _close_kept()
    _raise_soft_limit()
    for number in range(1100):
        _KEPT.append(os.open(Path(here, str(number)), os.O_CREAT | os.O_RDWR, 0o600))
        os.write(_KEPT[-1], b"mine")
    return len(_KEPT)


@hostile(undo=_close_kept)
def puts_a_full_pipe_on_numbers(here: str) -> int:
    """Who writes there waits for ever."""
    _close_kept()
    _raise_soft_limit()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(65536))
    os.set_blocking(writer, True)
    _KEPT.extend((reader, writer))
    _KEPT.extend(os.dup2(writer, number) for number in range(100, 1024))
    return len(_KEPT)


@hostile(undo=_close_kept)
def puts_a_file_on_numbers(here: str) -> int:
    """What is written there is in the file."""
    _close_kept()
    file = os.open(Path(here, "file"), os.O_CREAT | os.O_RDWR, 0o600)
    os.write(file, b"mine")
    _KEPT.append(file)
    _KEPT.extend(os.dup2(file, number) for number in range(100, 1024))
    return os.fstat(file).st_size


@hostile(undo=_close_kept)
def reads_of_an_empty_pipe_wait_on_numbers(here: str) -> int:
    """Who reads there waits for ever."""
    _close_kept()
    reader, writer = os.pipe()
    _KEPT.extend((reader, writer))
    _KEPT.extend(os.dup2(reader, number) for number in range(100, 1024))
    return len(_KEPT)


@hostile(undo=_close_kept)
def closes_unknown_and_takes_a_high_number(here: str) -> int:
    """`F_DUPFD` gives the first number that is free from there on."""
    os.closerange(40, 65536)
    _close_kept()
    file = os.open(Path(here, "file"), os.O_CREAT | os.O_RDWR, 0o600)
    os.write(file, b"mine")
    _KEPT.append(file)
    _KEPT.extend(fcntl.fcntl(file, fcntl.F_DUPFD, lowest) for lowest in range(64, 1000, 24))
    return os.fstat(file).st_size


@hostile()
def opens_all_that_a_low_limit_allows(here: str) -> int:
    """How many there are is what the limit says, less those below it that Celery has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in opened:
            os.close(number)
    return sum(number < 64 for number in opened)


@hostile()
def leaves_a_limit_below_all_descriptors(here: str) -> list[int]:
    """No descriptor can be opened by whoever comes next; those that are open go on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        error = 0
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as raised:
            error = raised.errno or 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return [error]


@hostile()
def starts_a_program_that_inherits_all(here: str) -> int:
    """Nothing of ours is inheritable: as many descriptors as without us."""
    listed = subprocess.run(
        ["ls", "/proc/self/fd"], capture_output=True, check=True, close_fds=False
    ).stdout
    return len(listed.split())


@hostile()
def lists_its_low_descriptors(here: str) -> list[int]:
    """Numbers that the next `open` would give are given to the task."""
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    for number in opened:
        os.close(number)
    return [number - opened[0] for number in opened]


@hostile(spoils=True)
def closes_standard_streams(here: str) -> bool:
    """Who logs afterwards writes into what is opened next."""
    os.closerange(0, 3)
    for name in ("in", "out"):
        os.open(Path(here, name), os.O_CREAT | os.O_RDWR, 0o600)
    # Celery's own log of the child goes there, with the time.
    os.open(os.devnull, os.O_WRONLY)
    return True
