"""The directory through which spawned children find their worker."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from otel_celery_memory.ipc.shared_memory import VARIABLE, SpawnDirectory


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_create_makes_a_private_directory_and_remove_removes_it(
    temporary: Path,
) -> None:
    made = SpawnDirectory.create(2_048)
    assert stat.S_IMODE(made.directory.stat().st_mode) == 0o700
    assert made.is_private()
    made.page.touch()
    made.rings.touch()
    made.remove()
    made.remove()
    assert list(temporary.iterdir()) == []


def test_from_environ_reads_environ_value() -> None:
    made = SpawnDirectory.create(2_048)
    assert SpawnDirectory.from_environ({VARIABLE: made.environ_value()}) == made
    assert (made.main_pid, made.max_memory_kib) == (os.getpid(), 2_048)


BAD = ["", ":", "::", "1:2:", "1:2:relative", "x:2:/a", "1:-2:/a", "1::/a", ":2:/a", "9" * 50]


@pytest.mark.parametrize("text", [*BAD, f"{BAD[-1]}:1:/a"])
def test_a_malformed_variable_names_no_directory(text: str) -> None:
    assert SpawnDirectory.from_environ({VARIABLE: text}) is None
    assert SpawnDirectory.from_environ({}) is None


def test_a_path_may_contain_anything() -> None:
    found = SpawnDirectory.from_environ({VARIABLE: "1:2:/a:b/c d"})
    assert found == SpawnDirectory(Path("/a:b/c d"), 1, 2)


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o777])
def test_a_directory_that_others_can_access_is_not_private_and_not_removed(
    temporary: Path, mode: int
) -> None:
    made = SpawnDirectory.create(0)
    made.directory.chmod(mode)
    assert made.is_private() is False
    made.remove()
    assert made.directory.exists()


def test_a_link_or_a_missing_directory_is_not_private(temporary: Path) -> None:
    made = SpawnDirectory.create(0)
    link = temporary / "link"
    link.symlink_to(made.directory)
    assert SpawnDirectory(link, 1, 0).is_private() is False
    assert SpawnDirectory(temporary / "nothing", 1, 0).is_private() is False


def test_remove_leaves_other_files(temporary: Path) -> None:
    made = SpawnDirectory.create(0)
    (made.directory / "theirs").touch()
    made.remove()
    assert [path.name for path in made.directory.iterdir()] == ["theirs"]
