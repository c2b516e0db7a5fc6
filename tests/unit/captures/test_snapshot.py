"""Files of ``tracemalloc.Snapshot.dump``: read where they are trusted, and only there."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from pathlib import Path

import pytest

from otel_celery_memory.captures.format import read_snapshot
from otel_celery_memory.captures.model import HEAP, Capture, CaptureError

HERE = f"{Path(__file__).parent}/"


class Bomb:
    """What an attacker's pickle brings: code that runs when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def dumped(path: Path, frames: int) -> tuple[list[bytearray], int]:
    """What is alive in a snapshot, and the line that made it."""
    tracemalloc.start(frames)
    try:
        kept = [bytearray(5_000) for _ in range(20)]  # the line that allocates
        tracemalloc.take_snapshot().dump(str(path))
    finally:
        tracemalloc.stop()
    source = Path(__file__).read_text(encoding="utf-8").splitlines()
    return kept, next(n for n, text in enumerate(source, 1) if "# the line that allocates" in text)


@pytest.mark.parametrize("frames", [1, 4])
def test_a_snapshot_is_a_capture_of_the_heap(tmp_path: Path, frames: int) -> None:
    file = tmp_path / "snapshot"
    kept, line = dumped(file, frames)
    os.utime(file, (1_000, 2_000))
    capture = read_snapshot(file, (HERE,), trust=True)
    assert (capture.kind, capture.taken_ns, capture.frames) == (HEAP, 2_000 * 10**9, frames)
    sites = [site for site in capture.sites if (site.path, site.line) == (__file__, line)]
    assert {site.name for site in sites} == {f"test_snapshot.py:{line}"}
    assert {len(site.stack) for site in sites} == {0 if frames == 1 else frames}
    assert {site.stack[-1:] for site in sites} <= {(), ((__file__, line),)}
    traces = tracemalloc.Snapshot.load(str(file)).filter_traces(
        [tracemalloc.Filter(True, __file__, line)]
    )
    assert sum(site.size_bytes for site in sites) == sum(each.size for each in traces.traces)
    assert sum(site.blocks for site in sites) == len(traces.traces)
    # A bytearray is an object and its buffer.
    assert len(traces.traces) >= 2 * len(kept)


def read(path: Path, *, trust: bool) -> Capture:
    return read_snapshot(path, trust=trust)


def test_one_that_is_not_trusted_is_not_opened_and_the_refusal_says_why(tmp_path: Path) -> None:
    file = tmp_path / "bomb"
    file.write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(
        CaptureError,
        match=r"loading one runs code that the file brings; pass --trust-pickle if you know who",
    ):
        read(file, trust=False)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "EOFError"),
        (b"\x80\x04", "EOFError"),
        (b"\x80\x04garbage", "UnpicklingError"),
        (pickle.dumps([1, 2]), "TypeError"),
        (b"\x80\x04cno_such_module\nname\n.", "ModuleNotFoundError"),
        (b"\x80\x04ctracemalloc\nno_such_name\n.", "AttributeError"),
        (b"\x80\x04ctracemalloc\nSnapshot\n)\x81.", "AttributeError"),
    ],
)
def test_a_broken_one_gives_an_error_of_one_line(tmp_path: Path, data: bytes, error: str) -> None:
    file = tmp_path / "snapshot"
    file.write_bytes(data)
    with pytest.raises(CaptureError, match=rf"^is no tracemalloc snapshot: {error}$"):
        read(file, trust=True)


def test_every_beginning_of_a_snapshot_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "snapshot"
    dumped(file, 1)
    data = file.read_bytes()
    for end in range(0, len(data), len(data) // 50):
        file.write_bytes(data[:end])
        with pytest.raises(CaptureError, match=r"^is no tracemalloc snapshot: \w+$"):
            read(file, trust=True)
