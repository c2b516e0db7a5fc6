"""Tasks that make processes, wait for them, and change what theirs may do."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.hostile.scenarios import EVERY_POOL, ORDINARY, hostile

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
_CLONE_NEWUSER, _CLONE_NEWPID = 0x10000000, 0x20000000
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 4, 36, 38


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _error_of(result: int) -> int:
    return 0 if result == 0 else ctypes.get_errno()


def _reap_all() -> list[int]:
    statuses = []
    try:
        while True:
            statuses.append(os.waitstatus_to_exitcode(os.wait()[1]))
    except ChildProcessError:
        return statuses


@hostile()
def waits_until_it_has_no_child(here: str) -> list[int]:
    """Who has a child of ours waits for ever."""
    for code in (3, 3):
        if os.fork() == 0:
            os._exit(code)
    return _reap_all()


@hostile()
def asks_for_any_child(here: str) -> str:
    """There is none."""
    try:
        return str(os.waitpid(-1, os.WNOHANG))
    except ChildProcessError:
        return "none"


@hostile()
def asks_for_any_child_by_waitid(here: str) -> str:
    """There is none."""
    try:
        return str(os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT))
    except ChildProcessError:
        return "none"


@hostile()
def lists_its_children(here: str) -> int:
    """As the kernel lists them."""
    return len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@hostile()
def forks_twice_and_leaves_a_daemon(here: str) -> int:
    """The grandchild has a session of its own and writes a file."""
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(3, 4096)
            Path(here, "daemon").write_text("was here")
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    while not Path(here, "daemon").exists():
        time.sleep(0.01)
    return status


@hostile()
def forks_a_hundred(here: str) -> list[int]:
    """Each ends with a code of its own."""
    children = []
    for code in range(100):
        child = os.fork()
        if child == 0:
            os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@hostile()
def forks_one_that_dies_of_a_signal(here: str) -> int:
    """It is ours to reap."""
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@hostile()
def forks_one_that_runs_a_task(here: str) -> int:
    """An eager call in a fork that nobody was told of."""
    from tests.hostile.app import nothing

    child = os.fork()
    if child == 0:
        os._exit(0 if nothing.apply().successful() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@hostile()
def forks_where_a_warning_is_an_error(here: str) -> int:
    """CPython 3.12 warns where a process of several threads forks."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        child = os.fork()
        if child == 0:
            os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@hostile()
def ignores_children(here: str) -> str:
    """With SIGCHLD ignored the kernel reaps them itself."""
    former = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        child = os.fork()
        if child == 0:
            os._exit(0)
        try:
            os.waitpid(child, 0)
        except ChildProcessError:
            return "reaped by the kernel"
    finally:
        signal.signal(signal.SIGCHLD, former)
    return "reaped by us"


@hostile(pools=EVERY_POOL)
def runs_programs(here: str) -> list[object]:
    """In the ways that the standard library has."""
    python = [sys.executable, "-S", "-E", "-c"]
    plain = subprocess.run([*python, "print(1)"], capture_output=True, check=True).stdout
    session = subprocess.run([*python, "raise SystemExit(5)"], start_new_session=True, check=False)
    shell = os.system("exit 3")
    return [plain.decode(), session.returncode, shell]


@hostile()
def spawns_and_prepares_programs(here: str) -> list[int]:
    """posix_spawn, and a function between fork and exec."""
    spawned = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 6"], os.environ)
    prepared = subprocess.run(["true"], preexec_fn=os.setsid, check=False)
    return [os.waitstatus_to_exitcode(os.waitpid(spawned, 0)[1]), prepared.returncode]


@hostile()
def replaces_a_fork_by_a_program(here: str) -> int:
    """exec in a fork."""
    child = os.fork()
    if child == 0:
        os.execv("/bin/sh", ["sh", "-c", "exit 9"])
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@hostile(runs=2)
def runs_processes_of_multiprocessing(here: str) -> list[object]:
    """A process, and a pool of two."""
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=os._exit, args=(3,))
    process.start()
    process.join()
    with ProcessPoolExecutor(2, mp_context=fork) as pool:
        return [process.exitcode, list(pool.map(abs, [-1, -2, -3]))]


@hostile(spoils=True)
def enters_a_user_namespace(here: str) -> int:
    """Only a process of one thread may."""
    return _error_of(_libc().unshare(_CLONE_NEWUSER))


@hostile(spoils=True)
def enters_other_namespaces(here: str) -> list[int]:
    """Of mounts, names, shared memory, and of the pids of what it forks."""
    kinds = (_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC, _CLONE_NEWPID)
    return [_error_of(_libc().unshare(kind)) for kind in kinds]


@hostile(spoils=True)
def becomes_another_user(here: str) -> str:
    """Its own entries in /proc are root's from then on."""
    Path(here).chmod(0o777)
    try:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    except PermissionError:
        return "refused"
    return f"{os.getuid()} {os.geteuid()}"


@hostile(spoils=True)
def cannot_be_dumped(here: str) -> list[int]:
    """Its own entries in /proc are root's from then on."""
    libc = _libc()
    return [
        _error_of(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)),
        _error_of(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)),
    ]


@hostile()
def reaps_for_its_descendants(here: str) -> list[int]:
    """As a subreaper it gets the orphans below it, and none of ours."""
    libc = _libc()
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        if os.fork() == 0:
            if os.fork() == 0:
                os._exit(2)
            os._exit(1)
        return sorted(_reap_all())
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@hostile(spoils=True)
def leads_a_session(here: str) -> bool:
    """Its process group is its own."""
    if os.getpgrp() != os.getpid():
        os.setsid()
    return os.getsid(0) == os.getpid()


@hostile(spoils=True)
def is_nice_and_keeps_to_one_core(here: str) -> list[int]:
    """As batch jobs do."""
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return [os.nice(5), len(os.sched_getaffinity(0))]


@hostile(spoils=True)
def locks_its_memory(here: str) -> int:
    """What is there and what comes."""
    return _error_of(_libc().mlockall(3))


@hostile(pools=ORDINARY)
def counts_its_threads(here: str) -> int:
    """As the kernel counts them."""
    return len(list(Path("/proc/self/task").iterdir()))


@hostile(spoils=True, long=True)
def is_replaced_by_a_program(here: str) -> None:
    """exec in the child of the pool itself."""
    os.execv("/bin/sh", ["sh", "-c", "exit 9"])


@hostile(spoils=True, long=True)
def kills_itself(here: str) -> None:
    """No handler hears of it."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


@hostile(spoils=True, long=True)
def is_terminated(here: str) -> None:
    """As by an administrator."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


@hostile(spoils=True, long=True)
def aborts(here: str) -> None:
    """As C code does that finds its heap broken."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.abort()


@hostile(spoils=True, long=True)
def reads_at_null(here: str) -> None:
    """As C code does that has a bug."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


@hostile(spoils=True, long=True)
def exits_at_once(here: str) -> None:
    """Nothing is cleaned up."""
    os._exit(0)


@hostile(spoils=True, long=True)
def closes_all_descriptors(here: str) -> None:
    """Those of the pool too."""
    os.closerange(0, 65536)
