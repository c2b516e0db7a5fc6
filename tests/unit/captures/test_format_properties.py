"""Captures by property: what was written is read, and whatever else is there is refused."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_celery_memory.captures.format import (
    MAX_BYTES,
    MAX_PARTS,
    dump_capture,
    load_capture,
    read_snapshot,
)
from otel_celery_memory.captures.model import Capture, CaptureError
from otel_celery_memory.captures.pprof import dump_pprof
from otel_celery_memory.cli.common import CommandError, read
from tests.unit.arbitrary import JSON
from tests.unit.captures.arbitrary import CAPTURES
from tests.unit.captures.documents import DOCUMENT, packed
from tests.unit.captures.examples import CAPTURE
from tests.unit.captures.profile_proto import decode_profile

SIZE = 1 << 18


def taken(data: bytes) -> Capture | None:
    """The capture, ``None`` for a refusal; anything else that is raised fails the test."""
    try:
        return load_capture(data)
    except CaptureError as error:
        assert str(error).isprintable()
        return None


@given(CAPTURES)
def test_any_capture_is_read_as_it_was_written(capture: Capture) -> None:
    data = dump_capture(capture)
    assert load_capture(data) == capture
    assert dump_capture(capture) == data


@given(CAPTURES)
def test_any_capture_is_a_profile_that_protobuf_s_own_runtime_reads(capture: Capture) -> None:
    profile = decode_profile(dump_pprof(capture))
    others = bool(capture.other_bytes or capture.other_blocks)
    assert [sample.values["inuse_space"] for sample in profile.samples] == [
        *(site.size_bytes for site in capture.sites),
        *([capture.other_bytes] if others else []),
    ]
    assert [len(sample.frames) for sample in profile.samples[: len(capture.sites)]] == [
        max(len(site.stack), 1) for site in capture.sites
    ]


@given(st.binary(max_size=200))
def test_any_bytes_are_no_capture_packed_or_not(data: bytes) -> None:
    assert [taken(data), taken(gzip.compress(data)), taken(zlib.compress(data))] == [None] * 3


@given(JSON, st.dictionaries(st.sampled_from(sorted(DOCUMENT)), JSON, max_size=3))
def test_any_json_and_any_values_in_the_places_of_a_capture_s_are_taken_or_refused(
    document: Any, values: dict[str, Any]
) -> None:
    taken(packed(document))
    found = taken(packed({**DOCUMENT, **values}))
    assert found is None or load_capture(dump_capture(found)) == found


@given(st.sampled_from(sorted(DOCUMENT["sites"][0])), JSON, st.sampled_from(["sites", "processes"]))
def test_any_value_in_the_place_of_a_site_s_or_a_process_s_is_taken_or_refused(
    name: str, value: Any, where: str
) -> None:
    parts = [*DOCUMENT[where], {**DOCUMENT[where][0], name: value}]
    found = taken(packed({**DOCUMENT, where: parts}))
    assert found is None or load_capture(dump_capture(found)) == found


@given(st.integers(10, len(dump_capture(CAPTURE))), st.binary(max_size=4), st.integers(0, 4))
def test_a_file_in_which_anything_has_changed_is_refused(at: int, put: bytes, cut: int) -> None:
    data = dump_capture(CAPTURE)
    changed = data[:at] + put + data[at + cut :]
    assert taken(changed) == (CAPTURE if changed == data else None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=100), st.binary(max_size=100).map(b"\x80".__add__)))
def test_whatever_a_file_holds_it_is_refused_and_a_pickle_is_not_even_opened(
    tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(CommandError):
        read(path, trust_pickle=False)
    with pytest.raises(CaptureError, match="loading one runs code"):
        read_snapshot(tmp_path / "nowhere", trust=False)


NESTED = {
    "lists": b"[" + b"[]," * (SIZE // 3) + b"[]]",
    "lists in lists": b"[" + (b"[" * 500 + b"]" * 500 + b",") * (SIZE // 1_001) + b"0]",
    "objects": b"[" + b"{}," * (SIZE // 3) + b"{}]",
    "objects in objects": b"["
    + (b'{"":' * 500 + b"0" + b"}" * 500 + b",") * (SIZE // 2_502)
    + b"0]",
    "numbers": b"[" + b"300," * (SIZE // 4) + b"0]",
    "texts": b"[" + b'"ab",' * (SIZE // 5) + b"0]",
    "a wide text": b'"\xf0\x9f\xa7\xa0' + b"a" * SIZE + b'"',
}


@pytest.mark.parametrize("what", NESTED)
def test_what_hostile_json_takes_is_bounded_by_its_bytes_and_its_parts(what: str) -> None:
    text = NESTED[what]
    data = gzip.compress(text, 1)
    parts = sum(map(text.count, (b"[", b"{", b",")))
    assert len(text) < MAX_BYTES
    assert parts < MAX_PARTS
    tracemalloc.start()
    try:
        assert taken(data) is None
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # At the bounds: 1.2 GB, and mostly much less.
    assert peak_bytes < 11 * len(text) + 240 * parts
