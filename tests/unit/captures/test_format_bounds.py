"""Files of any size or content are read only as far as needed."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from otel_celery_memory.captures import format as capture_format
from otel_celery_memory.captures.format import (
    MAX_BYTES,
    MAX_PARTS,
    dump_capture,
    load_capture,
    read_bytes,
)
from otel_celery_memory.captures.model import CaptureError
from tests.unit.captures.examples import CAPTURE, LEAK


def bomb(unpacked_bytes: int) -> bytes:
    """A small gzip file that unpacks to many spaces."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    chunk = b" " * (1 << 20)
    parts = [packer.compress(chunk) for _ in range(unpacked_bytes >> 20)]
    return b"".join([*parts, packer.flush()])


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_when_the_bound_is_reached() -> None:
    data = bomb(2 * MAX_BYTES)
    assert len(data) < MAX_BYTES >> 8
    with pytest.raises(CaptureError, match=r"^is larger than 67,108,864 bytes when unpacked$"):
        load_capture(data)


def test_a_file_that_unpacks_to_exactly_the_bound_is_parsed() -> None:
    with pytest.raises(CaptureError, match=r"^is no capture: not JSON$"):
        load_capture(bomb(MAX_BYTES))


def test_a_small_file_that_would_be_parsed_into_gigabytes_is_refused_before() -> None:
    # A list of one takes 90 bytes and is written with two.
    nested = b"[" + b"[[[[[[[[7]]]]]]]]," * (MAX_PARTS // 9) + b"7]"
    assert len(nested) < MAX_BYTES >> 2
    with pytest.raises(CaptureError, match=r"^is no capture: it has more than 2,097,152 parts$"):
        load_capture(gzip.compress(nested + b"," * 100, 1))


def test_twenty_thousand_sites_as_a_worker_keeps_at_most_are_within_the_bounds() -> None:
    stack = tuple(
        (f"/usr/lib/python3.11/site-packages/shop/app/feeds/{n}.py", n) for n in range(25)
    )
    capture = replace(CAPTURE, frames=25, sites=(replace(LEAK, stack=stack),) * 200)
    text = gzip.decompress(dump_capture(capture))
    assert 100 * len(text) < MAX_BYTES
    assert 100 * sum(map(text.count, (b"[", b"{", b","))) < MAX_PARTS


def test_a_capture_of_too_many_parts_to_be_read_again_is_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capture_format, "MAX_PARTS", 1_000)
    with pytest.raises(CaptureError, match=r"parts is too large: at most 1,000$"):
        dump_capture(replace(CAPTURE, sites=(LEAK,) * 100))


def test_a_capture_too_large_to_be_read_again_is_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capture_format, "MAX_BYTES", 10_000)
    with pytest.raises(CaptureError, match=r"is too large: at most 10,000$"):
        dump_capture(replace(CAPTURE, sites=(LEAK,) * 100))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A path to make something at."""
    yield tmp_path / "file"


def refusal(path: Path) -> str:
    with pytest.raises(CaptureError) as caught:
        read_bytes(path)
    return str(caught.value)


def test_the_bytes_of_a_file_are_read(place: Path) -> None:
    place.write_bytes(b"some bytes")
    assert read_bytes(place) == b"some bytes"


def test_a_file_larger_than_the_bound_is_refused(place: Path) -> None:
    with place.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert refusal(place) == "is larger than 67,108,864 bytes"


def test_a_fifo_without_a_writer_is_refused_and_not_waited_for(place: Path) -> None:
    os.mkfifo(place)
    assert refusal(place) == "is not a regular file"


def test_a_device_is_refused() -> None:
    assert refusal(Path("/dev/zero")) == "is not a regular file"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "is not a regular file"


def test_a_file_that_is_not_there_is_called_so(place: Path) -> None:
    assert refusal(place) == "cannot be read: No such file or directory"


def test_a_path_that_no_file_can_have_is_refused() -> None:
    assert refusal(Path("a\0b")) == "cannot be read: no file can have this path"
