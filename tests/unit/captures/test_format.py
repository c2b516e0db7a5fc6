"""The file format: what is written is as documented, and is read again."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest

from otel_celery_memory.captures.format import dump_capture, load_capture
from otel_celery_memory.captures.model import KINDS, CapturedSite
from tests.unit.captures.documents import DOCUMENT, changed
from tests.unit.captures.examples import CAPTURE


def test_the_file_is_gzipped_json_of_the_documented_form() -> None:
    assert json.loads(gzip.decompress(dump_capture(CAPTURE))) == DOCUMENT


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_is_read_again(kind: str) -> None:
    capture = replace(CAPTURE, kind=kind)
    assert load_capture(dump_capture(capture)) == capture


def test_names_that_are_no_utf_8_are_kept() -> None:
    odd = CapturedSite("a\0b", "/srv/\udcff\u202e.py", 0, "\x1b[2J", "\n", (("\udcff", 0),), 1, 1)
    capture = replace(CAPTURE, sites=(odd,), runs={"\ud800": 2**63 - 1})
    assert load_capture(dump_capture(capture)) == capture


def test_the_same_capture_makes_the_same_bytes_in_whatever_order_its_runs_came() -> None:
    turned = replace(CAPTURE, runs=dict(reversed(list(CAPTURE.runs.items()))))
    assert dump_capture(turned) == dump_capture(CAPTURE)
    # No time of writing, no name: RFC 1952, and the system that zlib is built for.
    assert dump_capture(CAPTURE)[:9] == b"\x1f\x8b\x08\0\0\0\0\0\0"


def test_keys_that_a_later_release_adds_are_ignored() -> None:
    sites = [{**each, "more": [1]} for each in DOCUMENT["sites"]]
    assert load_capture(changed(sites=sites, more={"a": 1.5})) == CAPTURE
