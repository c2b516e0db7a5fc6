"""The directory through which spawned children find their worker."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from otel_celery_memory.ipc.fifo import VARIABLE, FifoDirectory


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_create_makes_a_private_directory_with_a_fifo_and_remove_removes_it(
    temporary: Path,
) -> None:
    made = FifoDirectory.create(2_048)
    assert stat.S_IMODE(made.directory.stat().st_mode) == 0o700
    assert stat.S_ISFIFO(made.pipe.stat().st_mode)
    assert stat.S_IMODE(made.pipe.stat().st_mode) == 0o600
    assert made.is_private()
    made.page.touch()
    made.remove()
    made.remove()
    assert list(temporary.iterdir()) == []


def test_from_environ_reads_environ_value() -> None:
    made = FifoDirectory.create(2_048)
    assert FifoDirectory.from_environ({VARIABLE: made.environ_value()}) == made
    assert (made.main_pid, made.max_memory_kib) == (os.getpid(), 2_048)


BAD = ["", ":", "::", "1:2:", "1:2:relative", "x:2:/a", "1:-2:/a", "1::/a", ":2:/a", "9" * 50]


@pytest.mark.parametrize("text", [*BAD, f"{BAD[-1]}:1:/a"])
def test_a_malformed_variable_names_no_directory(text: str) -> None:
    assert FifoDirectory.from_environ({VARIABLE: text}) is None
    assert FifoDirectory.from_environ({}) is None


def test_a_path_may_contain_anything() -> None:
    found = FifoDirectory.from_environ({VARIABLE: "1:2:/a:b/c d"})
    assert found == FifoDirectory(Path("/a:b/c d"), 1, 2)


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o777])
def test_a_directory_that_others_can_access_is_not_private_and_not_removed(
    temporary: Path, mode: int
) -> None:
    made = FifoDirectory.create(0)
    made.directory.chmod(mode)
    assert made.is_private() is False
    made.remove()
    assert made.pipe.exists()


def test_a_link_or_a_missing_directory_is_not_private(temporary: Path) -> None:
    made = FifoDirectory.create(0)
    link = temporary / "link"
    link.symlink_to(made.directory)
    assert FifoDirectory(link, 1, 0).is_private() is False
    assert FifoDirectory(temporary / "nothing", 1, 0).is_private() is False


def test_remove_leaves_other_files(temporary: Path) -> None:
    made = FifoDirectory.create(0)
    (made.directory / "theirs").touch()
    made.remove()
    assert [path.name for path in made.directory.iterdir()] == ["theirs"]


def test_if_no_fifo_can_be_created_nothing_is_left(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object, mode: int) -> None:
        raise PermissionError("no FIFOs here")

    monkeypatch.setattr(os, "mkfifo", refuse)
    with pytest.raises(PermissionError):
        FifoDirectory.create(0)
    assert list(temporary.iterdir()) == []
