"""The directory of captures: private, written as a whole, and bounded by removing the oldest."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from otel_celery_memory.captures.directory import CaptureDirectory
from otel_celery_memory.captures.format import load_capture
from otel_celery_memory.captures.model import Capture
from otel_celery_memory.captures.pprof import dump_pprof
from tests.unit.captures.examples import CAPTURE, TAKEN_NS


def later(seconds: int) -> Capture:
    return replace(CAPTURE, taken_ns=TAKEN_NS + seconds * 10**9)


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "captures"


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_a_capture_is_saved_under_its_time_and_read_again(place: Path) -> None:
    saved = CaptureDirectory(place, token=lambda: "0123456789abcdef").save(CAPTURE)
    assert saved == place / "20261120T101500Z-0123456789abcdef.capture.json.gz"
    assert load_capture(saved.read_bytes()) == CAPTURE
    assert names(place) == [saved.name]


def test_a_profile_asked_for_lies_beside_it_under_the_same_stem(place: Path) -> None:
    CaptureDirectory(place, token=lambda: "0123456789abcdef").save(CAPTURE, pprof=True)
    stem = "20261120T101500Z-0123456789abcdef"
    assert names(place) == [f"{stem}.capture.json.gz", f"{stem}.pprof.gz"]
    assert (place / f"{stem}.pprof.gz").read_bytes() == dump_pprof(CAPTURE)


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_other_users_cannot_read_the_files_whatever_the_umask(place: Path, mask: int) -> None:
    with umask(mask):
        CaptureDirectory(place).save(CAPTURE, pprof=True)
    assert mode(place) == 0o700
    assert [mode(place / name) for name in names(place)] == [0o600, 0o600]


def test_names_are_unpredictable(place: Path) -> None:
    saved = {CaptureDirectory(place).save(CAPTURE).name for _ in range(5)}
    assert len(saved) == 5
    assert all(re.fullmatch(r"20261120T101500Z-[0-9a-f]{16}\.capture\.json\.gz", n) for n in saved)


def test_a_directory_that_is_there_keeps_its_mode(place: Path) -> None:
    place.mkdir()
    place.chmod(0o755)
    CaptureDirectory(place).save(CAPTURE)
    assert mode(place) == 0o755


def test_checking_makes_the_directory_and_nothing_in_it(place: Path) -> None:
    CaptureDirectory(place).check()
    assert (mode(place), names(place)) == (0o700, [])


def test_a_relative_path_is_that_of_the_moment_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    directory = CaptureDirectory("captures")
    monkeypatch.chdir("/")
    assert directory.save(CAPTURE).parent == tmp_path / "captures"


def test_the_oldest_are_removed_beyond_their_number_with_their_profiles(place: Path) -> None:
    directory = CaptureDirectory(place, keep=2)
    saved = [directory.save(later(second), pprof=True) for second in range(4)]
    stems = {path.name.partition(".")[0] for path in saved[2:]}
    assert {name.partition(".")[0] for name in names(place)} == stems
    assert len(names(place)) == 4


def test_the_oldest_are_removed_beyond_their_bytes(place: Path) -> None:
    one = CaptureDirectory(place).save(later(0)).stat().st_size
    directory = CaptureDirectory(place, keep_bytes=2 * one + one // 2)
    saved = [directory.save(later(second)) for second in range(1, 5)]
    assert names(place) == sorted(path.name for path in saved[-2:])


def test_the_newest_is_kept_though_it_alone_is_beyond_the_bytes(place: Path) -> None:
    directory = CaptureDirectory(place, keep_bytes=1)
    directory.save(later(0))
    saved = directory.save(later(1))
    assert names(place) == [saved.name]


def test_a_capture_is_not_removed_for_one_that_a_wrong_clock_dated_later(place: Path) -> None:
    directory = CaptureDirectory(place, keep=1)
    directory.save(later(10_000))
    saved = directory.save(later(0))
    assert names(place) == [saved.name]


def test_what_is_not_ours_is_not_removed(place: Path, tmp_path: Path) -> None:
    place.mkdir(mode=0o700)
    target = tmp_path / "target"
    target.write_bytes(b"x" * 100)
    stem = "20200101T000000Z-0123456789abcdef"
    (place / f"{stem}.capture.json.gz").symlink_to(target)
    (place / f"{stem}.pprof.gz").mkdir()
    (place / f"{stem}.capture.json.gz.bak").write_bytes(b"")
    (place / f"x{stem}.capture.json.gz").write_bytes(b"")
    (place / f"{stem.upper()}.capture.json.gz").write_bytes(b"")
    (place / "notes.txt").write_bytes(b"")
    kept = names(place)
    directory = CaptureDirectory(place, keep=1, keep_bytes=1)
    saved = [directory.save(later(second)) for second in range(2)]
    assert names(place) == sorted([*kept, saved[-1].name])
    assert target.read_bytes() == b"x" * 100


def test_what_a_killed_writer_left_is_removed_once_it_is_old(place: Path) -> None:
    place.mkdir(mode=0o700)
    old = place / "20200101T000000Z-0123456789abcdef.capture.json.gz.partial"
    young = place / "20200101T000000Z-0123456789abcdee.pprof.gz.partial"
    for partial in (old, young):
        partial.write_bytes(b"half")
    an_hour_and_more_ago = young.stat().st_mtime - 3_700
    os.utime(old, (an_hour_and_more_ago, an_hour_and_more_ago))
    saved = CaptureDirectory(place).save(CAPTURE)
    assert names(place) == sorted([young.name, saved.name])
