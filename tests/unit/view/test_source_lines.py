"""Source is shown of places that workers named, of Python files alone, and of nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from otel_celery_memory.view.source_lines import AROUND, FILE_BYTES_MAX, Source, SourceLines


def anything(_: str) -> bool:
    """Every file was named."""
    return True


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "feeds.py"
    path.write_text("".join(f"line {number}\n" for number in range(1, 31)))
    return path


def test_the_lines_around_a_place_are_read(module: Path) -> None:
    found = SourceLines(anything).around(str(module), 10)
    assert found == Source(6, tuple(f"line {number}" for number in range(6, 15)))


def test_at_the_begin_of_a_file_there_are_fewer(module: Path) -> None:
    found = SourceLines(anything).around(str(module), 1)
    assert found == Source(1, tuple(f"line {number}" for number in range(1, 2 + AROUND)))


@pytest.mark.parametrize("line", [0, -3, 32, 10**12])
def test_a_line_that_a_file_does_not_have_shows_nothing(module: Path, line: int) -> None:
    assert SourceLines(anything).around(str(module), line) is None


def test_a_file_that_no_worker_named_is_not_read(module: Path) -> None:
    assert SourceLines(lambda _: False).around(str(module), 10) is None


def test_nothing_but_python_source_is_read(tmp_path: Path, module: Path) -> None:
    secret = tmp_path / "id_rsa"
    secret.write_text("secret\n")
    disguised = tmp_path / "innocent.py"
    disguised.symlink_to(secret)
    lines = SourceLines(anything)
    assert lines.around(str(secret), 1) is None
    assert lines.around(str(disguised), 1) is None
    link = tmp_path / "link.py"
    link.symlink_to(module)
    assert lines.around(str(link), 10) is not None


@pytest.mark.parametrize("path", ["", "feeds.py", "../feeds.py", "/no/such/file.py", "/a\0b.py"])
def test_a_path_that_leads_nowhere_shows_nothing(path: str) -> None:
    assert SourceLines(anything).around(path, 1) is None


def test_a_pipe_or_a_directory_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "package.py").mkdir()
    lines = SourceLines(anything)
    assert lines.around(str(tmp_path / "pipe.py"), 1) is None
    assert lines.around(str(tmp_path / "package.py"), 1) is None


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    large = tmp_path / "large.py"
    with large.open("wb") as file:
        file.truncate(FILE_BYTES_MAX + 1)
    assert SourceLines(anything).around(str(large), 1) is None


def test_a_file_that_changed_is_read_again(module: Path) -> None:
    lines = SourceLines(anything)
    assert lines.around(str(module), 1) is not None
    module.write_text("other\n")
    assert lines.around(str(module), 1) == Source(1, ("other", ""))


def test_long_lines_are_cut_and_what_is_no_text_is_shown_as_well_as_it_can_be(
    tmp_path: Path,
) -> None:
    path = tmp_path / "strange.py"
    path.write_bytes(b"x" * 1_000 + b"\n\xff\x0cy")
    found = SourceLines(anything).around(str(path), 2)
    assert found == Source(1, ("x" * 200, "\ufffd\x0cy"))
