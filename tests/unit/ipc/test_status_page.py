"""The status page: a view is read complete or not at all, whatever is in the memory."""

from __future__ import annotations

import json
import os
import random
import struct
import time
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import pytest

from otel_celery_memory.ipc import status_page
from otel_celery_memory.ipc.status_page import STATUS_BYTES, StatusPage

VIEW: dict[str, Any] = {"tasks": [{"name": "app.tâche", "runs": 3}], "overhead": None}
HEADER = struct.Struct("<QII")


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_page, "_WAIT_S", 0.0)


@pytest.fixture
def page() -> Iterator[StatusPage]:
    made = StatusPage.create()
    yield made
    made.close()


def put(page: StatusPage, data: bytes, number: int = 2, checksum: int | None = None) -> None:
    """Bytes in the memory, with the header that a writer would give them."""
    found = crc32(data) if checksum is None else checksum
    os.pwrite(page.fd, HEADER.pack(number, len(data), found) + data[:STATUS_BYTES], 0)


def test_a_new_page_has_no_view(page: StatusPage) -> None:
    assert page.read() is None


def test_a_process_with_the_descriptor_reads_the_last_view(page: StatusPage) -> None:
    other = StatusPage(os.dup(page.fd))
    for view in ({"long": "x" * 10_000}, VIEW):
        assert page.write(view)
    assert other.read() == VIEW
    other.close()


def test_a_view_that_is_too_large_is_refused_and_the_one_before_stays(page: StatusPage) -> None:
    page.write(VIEW)
    assert not page.write({"x": "y" * STATUS_BYTES})
    assert page.read() == VIEW


def test_a_view_as_large_as_the_page_is_written(page: StatusPage) -> None:
    view = {"x": "y" * (STATUS_BYTES - HEADER.size - len('{"x":""}'))}
    assert page.write(view)
    assert page.read() == view


def test_a_view_that_is_being_written_is_not_read(page: StatusPage) -> None:
    page.write(VIEW)
    os.pwrite(page.fd, HEADER.pack(3, 0, 0), 0)
    assert page.read() is None


def test_after_a_writer_that_was_killed_the_next_one_writes_as_ever(page: StatusPage) -> None:
    page.write(VIEW)
    os.pwrite(page.fd, HEADER.pack(3, 0, 0), 0)
    page.write(VIEW)
    assert page.read() == VIEW


def test_a_writer_that_is_done_in_time_is_waited_for(
    page: StatusPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.pwrite(page.fd, HEADER.pack(3, 0, 0), 0)
    waits = []

    def sleep(_: float) -> None:
        waits.append(1)
        if len(waits) == 5:
            page.write(VIEW)

    monkeypatch.setattr(time, "sleep", sleep)
    assert (page.read(), len(waits)) == (VIEW, 5)


def test_a_writer_that_is_never_done_is_not_waited_for_for_ever(
    page: StatusPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.pwrite(page.fd, HEADER.pack(3, 0, 0), 0)
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    assert page.read() is None
    assert len(waits) < 50


@pytest.mark.parametrize("number", [2**64 - 2, 2**64 - 1])
def test_a_number_that_is_at_its_end_wraps_and_is_never_that_of_an_empty_page(
    page: StatusPage, number: int
) -> None:
    os.pwrite(page.fd, HEADER.pack(number, 0, 0), 0)
    for _ in range(2):
        assert page.write(VIEW)
        assert page.read() == VIEW


@pytest.mark.parametrize(
    "data",
    [b"not json", b"[1, 2]", b'"text"', b"null", b"\xff\xfe{", b"{}{}", b"[" * 200_000],
    ids=["no json", "a list", "a text", "null", "no UTF-8", "two", "deep"],
)
def test_json_that_is_no_object_is_no_view(page: StatusPage, data: bytes) -> None:
    put(page, data)
    assert page.read() is None


def test_a_view_with_the_wrong_checksum_or_length_is_none(page: StatusPage) -> None:
    data = json.dumps(VIEW).encode()
    put(page, data, checksum=1)
    assert page.read() is None
    put(page, data)
    assert page.read() == VIEW
    os.pwrite(page.fd, HEADER.pack(2, 2**32 - 1, crc32(data)), 0)
    assert page.read() is None


def test_random_garbage_is_never_an_error(page: StatusPage) -> None:
    chance = random.Random(5)
    for _ in range(50):
        os.pwrite(page.fd, chance.randbytes(1_000), 0)
        assert page.read() is None


def test_programs_that_a_task_starts_do_not_inherit_the_page(page: StatusPage) -> None:
    assert os.get_inheritable(page.fd) is False
