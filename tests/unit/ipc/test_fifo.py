"""The directory where spawned children meet their worker: named, private, taken away."""

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


def test_it_is_made_for_one_user_with_a_fifo_and_taken_away_again(temporary: Path) -> None:
    made = FifoDirectory.create(2_048)
    assert stat.S_IMODE(made.directory.stat().st_mode) == 0o700
    assert stat.S_ISFIFO(made.pipe.stat().st_mode)
    assert stat.S_IMODE(made.pipe.stat().st_mode) == 0o600
    assert made.is_private()
    made.page.touch()
    made.remove()
    made.remove()
    assert list(temporary.iterdir()) == []


def test_what_is_named_is_found() -> None:
    made = FifoDirectory.create(2_048)
    assert FifoDirectory.from_environ({VARIABLE: made.environ_value()}) == made
    assert (made.main_pid, made.max_memory_kib) == (os.getpid(), 2_048)


BAD = ["", ":", "::", "1:2:", "1:2:relative", "x:2:/a", "1:-2:/a", "1::/a", ":2:/a", "9" * 50]


@pytest.mark.parametrize("text", [*BAD, f"{BAD[-1]}:1:/a"])
def test_another_form_names_nothing(text: str) -> None:
    assert FifoDirectory.from_environ({VARIABLE: text}) is None
    assert FifoDirectory.from_environ({}) is None


def test_a_path_may_contain_anything() -> None:
    found = FifoDirectory.from_environ({VARIABLE: "1:2:/a:b/c d"})
    assert found == FifoDirectory(Path("/a:b/c d"), 1, 2)


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o777])
def test_a_directory_that_others_may_enter_is_not_private_and_not_touched(
    temporary: Path, mode: int
) -> None:
    made = FifoDirectory.create(0)
    made.directory.chmod(mode)
    assert made.is_private() is False
    made.remove()
    assert made.pipe.exists()


def test_a_link_or_what_is_not_there_is_not_private(temporary: Path) -> None:
    made = FifoDirectory.create(0)
    link = temporary / "link"
    link.symlink_to(made.directory)
    assert FifoDirectory(link, 1, 0).is_private() is False
    assert FifoDirectory(temporary / "nothing", 1, 0).is_private() is False


def test_what_somebody_else_put_there_stays(temporary: Path) -> None:
    made = FifoDirectory.create(0)
    (made.directory / "theirs").touch()
    made.remove()
    assert [path.name for path in made.directory.iterdir()] == ["theirs"]


def test_where_no_fifo_can_be_made_nothing_is_left(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object, mode: int) -> None:
        raise PermissionError("no FIFOs here")

    monkeypatch.setattr(os, "mkfifo", refuse)
    with pytest.raises(PermissionError):
        FifoDirectory.create(0)
    assert list(temporary.iterdir()) == []
