"""Which CPythons this machine has: on PATH, and those that pyenv keeps."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

LOWEST = (3, 10)
_ASK = "import platform, sys; print(platform.python_implementation(), *sys.version_info[:4])"
_ASK_TIMEOUT_S = 30


@dataclass(frozen=True, order=True)
class Interpreter:
    """One CPython: its version, and the program to start."""

    version: tuple[int, int, int]
    program: str

    @property
    def name(self) -> str:
        """Its version as people write it."""
        return ".".join(map(str, self.version))


def found(environ: Mapping[str, str]) -> list[Interpreter]:
    """One of each version from `LOWEST` on, the oldest first; no previews."""
    by_version: dict[tuple[int, int, int], Interpreter] = {}
    for program in _candidates(environ):
        version = _version(program)
        if version is not None and version[:2] >= LOWEST:
            by_version.setdefault(version, Interpreter(version, str(program)))
    return sorted(by_version.values())


def _candidates(environ: Mapping[str, str]) -> Iterable[Path]:
    home = environ.get("HOME", "/nonexistent")
    # Before PATH, where pyenv has programs that only choose one of these.
    kept = Path(environ.get("PYENV_ROOT") or Path(home, ".pyenv"), "versions")
    yield from sorted(kept.glob("*/bin/python3"))
    for directory in environ.get("PATH", "").split(os.pathsep):
        if directory:
            yield from sorted(Path(directory).glob("python3.[0-9]*[0-9]"))
            yield from sorted(Path(directory).glob("python3"))


def _version(program: Path) -> tuple[int, int, int] | None:
    """What the program says of itself; ``None`` where it is no CPython, or none that starts."""
    try:
        asked = subprocess.run(
            [program, "-I", "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=_ASK_TIMEOUT_S,
            check=True,
        )
        kind, major, minor, micro, level = asked.stdout.split()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    final = kind == "CPython" and level == "final"
    return (int(major), int(minor), int(micro)) if final else None
