"""Tasks that change where their process is, and what it may know of that."""

from __future__ import annotations

import decimal
import locale
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.hostile.scenarios import hostile

_ENVIRON = dict(os.environ)
_DIRECTORY = Path.cwd()


def _come_back() -> None:
    os.chdir(_DIRECTORY)
    os.umask(0o022)


@hostile(undo=lambda: os.environ.update(_ENVIRON))
def clears_the_environment(here: str) -> int:
    """Settings that are read now are not there."""
    os.environ.clear()
    return len(os.environ)


@hostile()
def reads_its_environment(here: str) -> list[str]:
    """No variable of ours is in it that the worker was not started with."""
    return sorted(set(os.environ) - set(_ENVIRON))


@hostile(undo=_come_back)
def has_no_working_directory(here: str) -> str:
    """It was removed below it."""
    gone = Path(here, "gone")
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return "none"


@hostile(undo=_come_back)
def makes_files_that_nobody_may_read(here: str) -> int:
    """umask 0o777."""
    return os.umask(0o777)


@hostile(spoils=True)
def lives_in_an_empty_root(here: str) -> list[str]:
    """No /proc, no modules to import, no temporary directory."""
    try:
        os.chroot(here)
    except PermissionError:
        return ["refused"]
    os.chdir("/")
    return sorted(path.name for path in Path("/").iterdir())


@hostile(undo=lambda: str(locale.setlocale(locale.LC_ALL, "C")) and None)
def speaks_another_language(here: str) -> str:
    """Numbers and messages of the process's locale."""
    try:
        return locale.setlocale(locale.LC_ALL, "C.UTF-8")
    except locale.Error:
        return "not installed"


@hostile(undo=lambda: decimal.setcontext(decimal.Context()))
def computes_with_few_digits(here: str) -> str:
    """The context of decimals, which outlives the task."""
    decimal.getcontext().prec = 3
    return str(decimal.Decimal(1) / 3)


@hostile()
def writes_to_temporary_files(here: str) -> int:
    """Nothing is there but its own."""
    directory = tempfile.mkdtemp()
    Path(directory, "mine").write_text("mine")
    count = len(list(Path(directory).parent.iterdir()))
    shutil.rmtree(directory)
    return count


@hostile(spoils=True)
def has_no_standard_streams(here: str) -> bool:
    """Whoever prints, fails."""
    sys.stdout = sys.stderr = sys.stdin = None
    sys.__dict__["__stderr__"] = None
    return True
