"""What can be measured in a process like this one, and where something cannot be: why.

The worker names what is missing when it starts, and ``check`` lists all of it.
"""

from __future__ import annotations

import ctypes
import os
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from otel_celery_memory.probes.allocators import c_function, malloc_in_use, read_heap
from otel_celery_memory.probes.own_memory import LinuxProcessProbe, open_process_probe
from otel_celery_memory.probes.procfs import PROC, read_process, read_shared
from otel_celery_memory.probes.tracemalloc_session import stop_is_fixed

_PR_GET_DUMPABLE = 3
_AS_THAT_USER = "Start the worker as that user from the beginning (User= of systemd, setpriv, su)"


@dataclass(frozen=True)
class Ability:
    """Something to measure; ``why_not`` is empty if it can be."""

    name: str
    why_not: str = ""
    remedy: str = ""
    """What a user can do about it, as a sentence; empty if nothing."""
    source: str = ""


def read_abilities(
    environ: Mapping[str, str] = os.environ, proc: Path = PROC
) -> tuple[Ability, ...]:
    """What can be measured in this process. It takes some milliseconds."""
    changed_user = has_changed_user()
    return (
        *_of_kernel(proc, changed_user=changed_user),
        *_of_allocators(environ, is_musl=is_musl()),
        _of_tracing(fixed=stop_is_fixed()),
    )


def has_changed_user() -> bool:
    """Whether this process has changed its user, so that Linux hides its memory from its own user.

    ``PR_GET_DUMPABLE`` of prctl(2): 1 unless the process was given another user or other rights.
    """
    prctl = c_function("prctl", ctypes.c_int, ctypes.c_int)
    return prctl is not None and os.geteuid() != 0 and prctl(_PR_GET_DUMPABLE) in (0, 2)


def is_musl() -> bool:
    """Whether this interpreter was built for musl, the C library of Alpine."""
    names = (sysconfig.get_config_var(name) for name in ("HOST_GNU_TYPE", "SOABI", "MULTIARCH"))
    return any("musl" in str(name) for name in names)


def _of_kernel(proc: Path, *, changed_user: bool) -> tuple[Ability, ...]:
    probe = open_process_probe(proc)
    by_proc, peak = isinstance(probe, LinuxProcessProbe), probe.resets_peak
    probe.close()
    reading, shared = read_process(os.getpid(), proc), read_shared(os.getpid(), proc)

    def because(can: bool, why_not: str) -> tuple[str, str]:
        if can:
            return "", ""
        if not by_proc:
            return "there is no /proc", ""
        if changed_user:
            hidden = "Linux hides it from a process that has changed its user, as by --uid"
            return hidden, _AS_THAT_USER
        return why_not, ""

    return (
        Ability("RSS of a task", source="/proc" if by_proc else "psutil"),
        Ability("peak RSS of a task", *because(peak, "/proc/self/clear_refs cannot be written")),
        Ability(
            "USS and PSS",
            *because(shared.unique_bytes is not None, "/proc/self/smaps_rollup cannot be read"),
        ),
        Ability(
            "open files",
            *because(
                reading is not None and reading.open_files is not None,
                "/proc/self/fd cannot be read",
            ),
        ),
        Ability("end of a process", *_noticed(can=hasattr(os, "pidfd_open"))),
    )


def _noticed(*, can: bool) -> tuple[str, str]:
    return ("", "") if can else ("there is no pidfd: it is noticed within a second", "")


def _of_allocators(environ: Mapping[str, str], *, is_musl: bool) -> tuple[Ability, ...]:
    preloaded = environ.get("LD_PRELOAD", "").strip()
    no_counter = ("the C library has no mallinfo2", "It comes with glibc 2.33")
    if is_musl:
        no_counter = ("musl's malloc counts nothing", "Run an image with glibc (slim, not alpine)")
    has_counter = read_heap().malloc_free_bytes is not None
    if has_counter or preloaded:
        keeps_not = ("no counter of malloc's follows what is allocated", "")
        if preloaded:
            keeps_not = (
                f"the allocator of LD_PRELOAD={preloaded} has no counter that follows it",
                "Use glibc's malloc, jemalloc or tcmalloc",
            )
    else:
        keeps_not = no_counter
    return (
        Ability("heap that a task keeps", *(("", "") if malloc_in_use() else keeps_not)),
        Ability("free memory of malloc", *(("", "") if has_counter else no_counter)),
    )


def _of_tracing(*, fixed: bool) -> Ability:
    if fixed:
        return Ability("allocations beside threads")
    return Ability(
        "allocations beside threads",
        "to stop tracemalloc can crash this CPython where a native thread enters the interpreter "
        "(gh-128679); those of OpenBLAS and OpenMP do not",
        "It is fixed in CPython 3.12.9 and 3.13.2",
    )
