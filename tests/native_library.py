"""A C library with threads that Python did not start, under any name."""

from __future__ import annotations

import subprocess
from pathlib import Path

THREADS = """
#include <pthread.h>
#include <unistd.h>
#include <dlfcn.h>
#include <stddef.h>
static void *(*take)(size_t);
static void (*give)(void *);
static void *rest(void *nothing) { for (;;) pause(); return nothing; }
static void *enter(void *nothing) { for (;;) give(take(100)); return nothing; }
static void begin(void *(*work)(void *)) { pthread_t one; pthread_create(&one, 0, work, 0); }
void begin_resting(void) { begin(rest); }
void begin_entering(void) {
    take = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "PyMem_RawMalloc");
    give = (void (*)(void *))dlsym(RTLD_DEFAULT, "PyMem_RawFree");
    begin(enter);
    begin(enter);
}
"""


def compiled(directory: Path, name: str) -> str:
    """A library of that name, with threads."""
    (directory / "threads.c").write_text(THREADS)
    library = str(directory / name)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-o", library, "threads.c", "-ldl", "-lpthread"],
        cwd=directory,
        check=True,
    )
    return library
