"""Mounts and processes of a worker's own, where the machine allows them; who is in them."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Iterable
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


def reachable(paths: Iterable[Path], spare: Path) -> str:
    """Shell commands that let every user reach directories which lie in root's private ones.

    For mounts of one's own: each private directory is hidden by one with nothing in it but the
    way. ``spare`` is an empty directory, to hold what is hidden meanwhile.
    """
    hidden = {path: private for path in paths if (private := _private_above(path)) is not None}
    kept = {path: spare / str(number) for number, path in enumerate(hidden)}
    for directory in kept.values():
        directory.mkdir()
    commands = [
        "true",
        *(f"mount --bind {path} {directory}" for path, directory in kept.items()),
        *(f"mount -t tmpfs -o mode=755 tmpfs {private}" for private in {*hidden.values()}),
        *(f"mkdir -p {path} && mount --bind {there} {path}" for path, there in kept.items()),
    ]
    return " && ".join(commands)


def _private_above(path: Path) -> Path | None:
    above = [*reversed(path.resolve().parents), path.resolve()]
    return next((each for each in above if not each.stat().st_mode & stat.S_IXOTH), None)


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
