"""Mounts and processes of a worker's own, where the machine allows them; who is in them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

CONTAINER = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child")
"""What is started by this is PID 1, and whatever it started ends with it."""


def _may_unshare(*options: str) -> bool:
    """Whether this process may have namespaces of its own; root in a container may not."""
    tried = subprocess.run(["unshare", *options, "true"], capture_output=True, check=False)
    return tried.returncode == 0


needs_mounts = pytest.mark.skipif(
    not _may_unshare("--mount"), reason="no rights to have mounts of one's own"
)
needs_processes = pytest.mark.skipif(
    not _may_unshare(*CONTAINER[1:]), reason="no rights to have a process 1 of one's own"
)


def inhabitants(main_pid: int) -> dict[int, str]:
    """Pid as seen from here and state letter of each process in the namespace of a process."""
    namespace = _namespace(main_pid)
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        pid = int(directory.name)
        if namespace is not None and _namespace(pid) == namespace:
            found[pid] = _state(pid)
    return found


def _namespace(pid: int) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return None


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""
