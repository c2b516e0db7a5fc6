"""Tasks that lower what the kernel gives to their process."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.hostile.scenarios import PREFORK, hostile


@contextmanager
def _soft_limit(kind: int, value: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def _used_bytes(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024


def _asks_for(size_bytes: int) -> str:
    try:
        bytearray(size_bytes)
    except MemoryError:
        return "refused"
    return "given"


@hostile()
def runs_out_of_address_space(here: str) -> str:
    """What it asks for is refused; what is small is given."""
    with _soft_limit(resource.RLIMIT_AS, _used_bytes("VmSize:") + (32 << 20)):
        return _asks_for(1 << 30)


@hostile(spoils=True)
def leaves_an_address_space_that_is_full(here: str) -> str:
    """Who comes next gets no large mapping. Without any, a child of Celery's hangs by chance."""
    allowed = _used_bytes("VmSize:") + (16 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return _asks_for(64 << 20)


@hostile()
def runs_out_of_data(here: str) -> str:
    """The same of its heap."""
    with _soft_limit(resource.RLIMIT_DATA, _used_bytes("VmData:") + (32 << 20)):
        return _asks_for(1 << 30)


@hostile(spoils=True)
def may_start_no_thread_and_no_process(here: str) -> str:
    """Where it is not root's."""
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    try:
        child = os.fork()
    except BlockingIOError:
        return "refused"
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "given"


@hostile(spoils=True)
def may_write_no_long_file(here: str) -> list[object]:
    """4 KiB a file, and SIGXFSZ as Python has it."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    file = os.open(Path(here, "file"), os.O_CREAT | os.O_WRONLY, 0o600)
    written = os.write(file, bytes(8192))
    try:
        os.write(file, b"x")
    except OSError as error:
        return [written, error.errno]
    finally:
        os.close(file)
    return [written, 0]


@hostile(pools=PREFORK, runs=1)
def uses_up_its_cpu_time(here: str) -> str:
    """SIGXCPU comes when it is used up, and no sooner."""

    class UsedUpError(Exception):
        pass

    def used_up(*_: object) -> None:
        raise UsedUpError

    usage = resource.getrusage(resource.RUSAGE_SELF)
    allowed = int(usage.ru_utime + usage.ru_stime) + 1
    former = signal.signal(signal.SIGXCPU, used_up)
    try:
        with _soft_limit(resource.RLIMIT_CPU, allowed):
            while time.process_time() < allowed + 30:
                pass
    except UsedUpError:
        return "used up"
    finally:
        signal.signal(signal.SIGXCPU, former)
    return "never told"


@hostile()
def recurses_until_it_may_not(here: str) -> int:
    """How deep it gets is what Celery left of the stack."""

    def deeper(depth: int) -> int:
        try:
            return deeper(depth + 1)
        except RecursionError:
            return depth

    return deeper(0)


@hostile(undo=lambda: sys.setrecursionlimit(1000))
def leaves_a_low_recursion_limit(here: str) -> int:
    """Set from where the task is: Celery gets by with it, and so must who comes next."""
    depth, frame = 0, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    former = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + 60)
    return former - sys.getrecursionlimit()
