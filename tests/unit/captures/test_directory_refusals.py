"""Directories in which others could lead the writing elsewhere are refused; so are full disks."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from otel_celery_memory.captures.directory import CaptureDirectory
from otel_celery_memory.captures.format import load_capture
from otel_celery_memory.captures.model import CaptureError
from tests.unit.captures.examples import CAPTURE
from tests.unit.captures.limits import files_of_at_most


def refusal(directory: CaptureDirectory) -> str:
    """Why it is not written to; checking it says the same as saving to it."""
    with pytest.raises(CaptureError) as checked:
        directory.check()
    with pytest.raises(CaptureError) as saved:
        directory.save(CAPTURE, pprof=True)
    assert str(checked.value) == str(saved.value)
    return str(saved.value).removeprefix(f"capture directory '{directory.path}' ")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "captures"


@pytest.mark.parametrize("end", ["", "/", "/.", "//"])
def test_a_link_is_refused_though_it_leads_to_a_good_directory(
    tmp_path: Path, place: Path, end: str
) -> None:
    good = tmp_path / "good"
    good.mkdir(mode=0o700)
    place.symlink_to(good)
    assert refusal(CaptureDirectory(f"{place}{end}")) == "is a symbolic link"
    assert not any(good.iterdir())


def test_a_link_to_nothing_is_refused_and_not_followed(tmp_path: Path, place: Path) -> None:
    place.symlink_to(tmp_path / "nothing")
    assert refusal(CaptureDirectory(place)) == "is a symbolic link"
    assert not (tmp_path / "nothing").exists()


def test_a_file_is_refused(place: Path) -> None:
    place.write_bytes(b"")
    assert refusal(CaptureDirectory(place)) == "is not a directory"


def test_a_path_below_a_file_is_refused(place: Path) -> None:
    place.write_bytes(b"")
    assert refusal(CaptureDirectory(place / "below")) == "is not a directory"


def test_directories_above_are_not_made(place: Path) -> None:
    directory = CaptureDirectory(place / "below")
    assert refusal(directory) == "cannot be made: the directory above it does not exist"
    assert not place.exists()


def test_a_path_that_no_directory_can_have_is_refused(place: Path) -> None:
    with pytest.raises(CaptureError, match=r"cannot be used: .*null"):
        CaptureDirectory(f"{place}\0").check()
    with pytest.raises(CaptureError, match=r"cannot be used: File name too long$"):
        CaptureDirectory(f"{place}{'x' * 300}").check()


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_directory_that_others_can_write_to_is_refused(place: Path, mode: int) -> None:
    place.mkdir()
    place.chmod(mode)
    assert refusal(CaptureDirectory(place)) == (
        f"can be written to by others (mode {mode:04o}): chmod it to 0700"
    )
    assert not any(place.iterdir())


def test_a_directory_of_another_user_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.mkdir(mode=0o700)
    ours = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: ours + 1)
    assert refusal(CaptureDirectory(place)) == f"belongs to user {ours}, not to {ours + 1}"
    assert not any(place.iterdir())


def test_a_link_put_where_the_new_file_will_be_is_not_followed(tmp_path: Path, place: Path) -> None:
    place.mkdir(mode=0o700)
    victim = tmp_path / "victim"
    name = "20261120T101500Z-0123456789abcdef.capture.json.gz.partial"
    (place / name).symlink_to(victim)
    directory = CaptureDirectory(place, token=lambda: "0123456789abcdef")
    with pytest.raises(CaptureError, match=r"cannot be written to: File exists$"):
        directory.save(CAPTURE)
    assert not victim.exists()
    # What was there before is not ours to remove.
    assert [entry.name for entry in place.iterdir()] == [name]


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
def test_a_disk_that_fills_up_leaves_nothing_of_a_capture(place: Path, fails_at: int) -> None:
    writes = 0

    def write(fd: int, data: memoryview) -> int:
        nonlocal writes
        writes += 1
        if writes == fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # Two writes a file: a write may take less than it was given.
        return os.write(fd, data[: len(data) // 2 + 1])

    directory = CaptureDirectory(place, write=write)
    with pytest.raises(CaptureError, match=r"' cannot be written to: No space left on device$"):
        directory.save(CAPTURE, pprof=True)
    assert not any(place.iterdir())
    assert load_capture(directory.save(CAPTURE).read_bytes()) == CAPTURE


def test_a_file_that_the_kernel_cuts_short_leaves_nothing_of_a_capture(place: Path) -> None:
    directory = CaptureDirectory(place)
    with (
        files_of_at_most(100),
        pytest.raises(CaptureError, match=r"' cannot be written to: File too large$"),
    ):
        directory.save(CAPTURE)
    assert not any(place.iterdir())


UNSHARE = ["unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",))]
"""Runs a command with mounts of its own."""


def may_mount() -> bool:
    """Whether this process may do that; one in a container may not."""
    if shutil.which(UNSHARE[0]) is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


FULL_DISK = """
set -eu
mount -t tmpfs -o size=8k,mode=0700 none "$1"
exec "$2" -c '
import os, sys
from otel_celery_memory.captures.directory import CaptureDirectory
from otel_celery_memory.captures.model import CaptureError
from tests.unit.captures.examples import CAPTURE
directory = CaptureDirectory(sys.argv[1])
kept = []
try:
    while True:
        kept.append(directory.save(CAPTURE).name)
except CaptureError as error:
    assert sorted(kept) == sorted(os.listdir(sys.argv[1])), os.listdir(sys.argv[1])
    print(len(kept), error)
' "$1"
"""


@pytest.mark.skipif(not may_mount(), reason="no rights to mount a small file system")
def test_a_disk_that_is_really_full_leaves_whole_captures_alone(place: Path) -> None:
    place.mkdir()
    command = [*UNSHARE, "sh", "-c", FULL_DISK, "sh", str(place), sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"2 capture directory '{place}' cannot be written to: " + (
        "No space left on device\n"
    )
