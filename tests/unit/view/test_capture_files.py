"""The page gets of a capture's file what it shows, and nothing of any other file."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from otel_celery_memory import conventions as c
from otel_celery_memory.captures.directory import CaptureDirectory
from otel_celery_memory.captures.model import Capture
from otel_celery_memory.view import capture_files
from otel_celery_memory.view.application import Feed, application
from otel_celery_memory.view.capture_files import key_of
from otel_celery_memory.view.remote import Told
from otel_celery_memory.view.store import CAPTURES_MAX, Store
from tests.unit.captures.examples import CAPTURE, HEAP_AFTER, HEAP_BEFORE, LEAK
from tests.unit.view.examples import AROUND, BEGAN_S, WORKER, event, rss, shown_worker, store_with
from tests.unit.view.serving import ask, served


@pytest.fixture
def captures(tmp_path: Path) -> CaptureDirectory:
    return CaptureDirectory(tmp_path / "captures")


def saved(captures: CaptureDirectory, *wanted: Capture) -> list[str]:
    return [str(captures.save(each)) for each in wanted]


def telling(*files: str) -> Store:
    """A store whose worker told of these captures by events, the oldest first."""
    events = (
        event(c.SNAPSHOT.name, {c.SNAPSHOT_FILE: file, c.SNAPSHOT_SITES: 3}) for file in files
    )
    return store_with(rss("main", 1), events=tuple(events))


def test_a_capture_has_its_places_and_its_flame_graph(captures: CaptureDirectory) -> None:
    (file,) = saved(captures, CAPTURE)
    found = capture_files.shown(file)
    first = found["top"][0]
    assert (first["place"], first["size"]) == ("app/feeds.py:41 in refresh", LEAK.size_bytes)
    assert first["a_run"] == LEAK.size_bytes / 20
    assert (found["runs"], found["places"]) == (24, 3)
    assert found["flame"][0]["name"] == "feeds.refresh"


def test_a_comparison_has_what_the_command_says(captures: CaptureDirectory) -> None:
    before, after = saved(captures, HEAP_BEFORE, HEAP_AFTER)
    found = capture_files.compared(before, after)
    grown = HEAP_AFTER.sites[0].size_bytes - HEAP_BEFORE.sites[0].size_bytes
    assert grown > 0
    assert found["top"][0]["change"] == grown
    assert found["top"][0]["place"] == "app/feeds.py:41 in refresh"
    assert all(each["change"] for each in found["top"])


def test_captures_of_two_kinds_are_not_compared_and_the_page_says_why(
    captures: CaptureDirectory,
) -> None:
    before, after = saved(captures, CAPTURE, HEAP_AFTER)
    assert "cannot be compared" in capture_files.compared(before, after)["error"]


def test_no_other_file_is_read(tmp_path: Path, captures: CaptureDirectory) -> None:
    (file,) = saved(captures, CAPTURE)
    renamed = tmp_path / "secret.json"
    renamed.write_bytes(Path(file).read_bytes())
    large = tmp_path / "large.capture.json.gz"
    large.touch()
    os.truncate(large, capture_files.FILE_BYTES_MAX + 1)
    fifo = tmp_path / "fifo.capture.json.gz"
    os.mkfifo(fifo)
    other = tmp_path / "other.capture.json.gz"
    other.write_bytes(b"root:x:0:0")
    for path, why in (
        (str(renamed), "has not the name of a capture"),
        (os.path.relpath(file), "has not the name of a capture"),
        (str(tmp_path / "none.capture.json.gz"), "cannot be read on this machine"),
        ("/\0.capture.json.gz", "cannot be read on this machine"),
        (str(large), "is too large for the page"),
        (str(fifo), "is not a regular file"),
        (str(other), "is no capture: not gzip-compressed"),
    ):
        assert why in capture_files.shown(path)["error"]


def test_texts_that_utf8_cannot_carry_or_are_too_long_are_mended(
    captures: CaptureDirectory,
) -> None:
    site = replace(LEAK, task="\udcff" * 10_000)
    (file,) = saved(captures, replace(CAPTURE, sites=(site,), runs={site.task: 1}))
    found = capture_files.shown(file)
    json.dumps(found, ensure_ascii=False).encode()
    assert len(found["top"][0]["task"]) == 500


def test_captures_that_were_answered_and_those_of_events_are_one_list() -> None:
    store = telling("/c/1.capture.json.gz", "/c/2.capture.json.gz")
    answered = {"number": 2, "state": "complete", "file": "/c/2.capture.json.gz"}
    store.take_answers({WORKER.node: Told({}, (answered,))})
    rows = shown_worker(store)["captures"]
    assert [each["file"] for each in rows] == ["/c/2.capture.json.gz", "/c/1.capture.json.gz"]
    assert [each.get("number") for each in rows] == [2, None]
    assert [each["time"] for each in rows] == [BEGAN_S, BEGAN_S]
    assert [each["key"] for each in rows] == [key_of(each["file"]) for each in rows]


def test_of_many_captures_the_newest_are_kept() -> None:
    store = telling(*(f"/c/{number}.capture.json.gz" for number in range(100)))
    files = [each["file"] for each in shown_worker(store)["captures"]]
    assert len(files) == CAPTURES_MAX
    assert files[0] == "/c/99.capture.json.gz"


def test_only_captures_that_a_worker_told_of_are_served(captures: CaptureDirectory) -> None:
    before, after, untold = saved(captures, HEAP_BEFORE, HEAP_AFTER, CAPTURE)
    feed = Feed(telling(before, after), AROUND, lambda *_: None)
    one, two, three = map(key_of, (before, after, untold))
    with served(application(feed, ("127.0.0.1",))) as port:
        assert json.loads(ask(port, f"/captures/{one}").body)["flame"]
        assert json.loads(ask(port, f"/captures/{one}/{two}").body)["top"]
        for path in (three, f"{one}/{three}", "x", before):
            assert ask(port, f"/captures/{path}").status == 404


def test_where_other_machines_may_send_no_capture_is_read(captures: CaptureDirectory) -> None:
    (file,) = saved(captures, CAPTURE)
    around = replace(AROUND, captures=False)
    feed = Feed(telling(file), around, lambda *_: None)
    assert [each["key"] for each in feed.now()["workers"][0]["captures"]] == [None]
    with served(application(feed, ("127.0.0.1",))) as port:
        assert ask(port, f"/captures/{key_of(file)}").status == 404


def test_a_saved_page_has_the_newest_captures_and_each_pair_compared(
    captures: CaptureDirectory,
) -> None:
    files = saved(captures, CAPTURE, HEAP_BEFORE, HEAP_AFTER)
    feed = Feed(telling("/gone.capture.json.gz", *files), AROUND, lambda *_: None)
    found = capture_files.with_captures(feed.now(live=False))
    runs, before, after = map(key_of, files)
    assert found["captured"].keys() == {key_of("/gone.capture.json.gz"), runs, before, after}
    assert found["compared"].keys() == {f"{runs}/{before}", f"{runs}/{after}", f"{before}/{after}"}
    assert found["compared"][f"{before}/{after}"] == capture_files.compared(files[1], files[2])
