"""The file of last known processes: what is written is found, and nothing else is believed."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from otel_celery_memory.reporter.last_state import LastStateFile, SavedProcess, SavedWorker

KNOWN = SavedWorker(
    time_ns=9,
    main_pid=1,
    main_started=77,
    cgroup="/sys/fs/cgroup:5",
    oom_kills=3,
    processes=(
        SavedProcess(-1, 1, 10, 11, None, None, None, None, None, None),
        SavedProcess(0, 8, 20, 21, "app.task", "id-1", 5, 19, 2, 3),
        SavedProcess(None, 9, None, None, None, None, None, None, None, None),
    ),
)


@pytest.fixture
def file(tmp_path: Path) -> LastStateFile:
    return LastStateFile(tmp_path / "state", "celery@box")


def put(file: LastStateFile, content: bytes) -> None:
    file.path.parent.mkdir(exist_ok=True)
    file.path.write_bytes(content)


def test_what_is_written_is_found_until_it_is_removed(file: LastStateFile) -> None:
    assert file.read() is None
    file.write(KNOWN)
    file.write(replace(KNOWN, time_ns=10))
    assert file.read() == replace(KNOWN, time_ns=10)
    file.remove()
    file.remove()
    assert (file.read(), list(file.path.parent.iterdir())) == (None, [])


def test_the_file_and_its_directory_are_the_user_s_alone(file: LastStateFile) -> None:
    file.write(KNOWN)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in file.path.parent.iterdir()] == [file.path.name]


@pytest.mark.parametrize("node", ["../../etc/x", "a/b", "..", "", "n\0l", "\udc80", "x" * 5_000])
def test_no_node_name_leads_out_of_the_directory(tmp_path: Path, node: str) -> None:
    file = LastStateFile(tmp_path, node)
    file.write(KNOWN)
    assert file.read() == KNOWN
    assert [path.parent for path in tmp_path.rglob("*")] == [tmp_path]


def test_two_nodes_have_two_files(tmp_path: Path) -> None:
    assert len({LastStateFile(tmp_path, name).path for name in ("a/b", "a_b", "A_b")}) == 3


def test_links_are_not_followed(file: LastStateFile, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text(json.dumps({"format": 2, **asdict(KNOWN)}))
    before = victim.read_bytes()
    file.path.parent.mkdir()
    file.path.symlink_to(victim)
    file.path.with_suffix(".new").symlink_to(victim)
    assert file.read() is None
    file.write(replace(KNOWN, time_ns=10))
    assert file.read() == replace(KNOWN, time_ns=10)
    assert (victim.read_bytes(), file.path.is_symlink()) == (before, False)


def test_a_pipe_in_its_place_is_not_waited_for(file: LastStateFile) -> None:
    file.path.parent.mkdir()
    os.mkfifo(file.path)
    assert file.read() is None


def changed(**values: Any) -> bytes:
    return json.dumps({"format": 2, **asdict(KNOWN), **values}).encode()


GARBAGE = [
    b"",
    b"\xff\xfe",
    b"null",
    b"[]",
    b"{}",
    b"7",
    b"[" * 100_000,
    b"1" * 5_000,
    changed()[:-5],
    changed(format=1),
    changed(processes=None),
    changed(processes={}),
    changed(processes=[1]),
    changed(processes=[{}]),
    changed(main_pid="1"),
    changed(main_pid=True),
    changed(main_pid=2**63),
    changed(main_started=1.5),
    changed(cgroup=None),
    changed(oom_kills=-7),
    changed(time_ns=None),
    changed(processes=[{**asdict(KNOWN.processes[1]), "task": 5}]),
    changed(processes=[{**asdict(KNOWN.processes[1]), "pid": None}]),
    changed(processes=[{**asdict(KNOWN.processes[1]), "slot": 10_000}]),
]


@pytest.mark.parametrize("content", GARBAGE, ids=range(len(GARBAGE)))
def test_what_was_not_written_by_us_is_logged_and_not_used(
    file: LastStateFile, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    put(file, content)
    assert file.read() is None
    assert len(caplog.records) == 1


def test_a_file_that_is_huge_is_read_in_part_and_so_not_used(file: LastStateFile) -> None:
    put(file, b" " * (4 << 20) + changed())
    assert file.read() is None


def test_of_what_is_too_much_a_part_is_used(file: LastStateFile) -> None:
    process = {**asdict(KNOWN.processes[1]), "task": "t" * 600}
    put(file, changed(processes=[process] * 1_500))
    found = file.read()
    assert found is not None
    assert (len(found.processes), found.processes[0].task) == (1_000, "t" * 512)


def test_a_failing_write_is_logged_once_and_retried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    file = LastStateFile(tmp_path / "file" / "state", "celery@box")
    with caplog.at_level(logging.WARNING):
        file.write(KNOWN)
        file.write(KNOWN)
    assert len(caplog.records) == 1
    (tmp_path / "file").unlink()
    (tmp_path / "file").mkdir()
    file.write(KNOWN)
    assert file.read() == KNOWN
