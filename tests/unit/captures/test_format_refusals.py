"""A file that is no capture, or none that this release reads, gives an error of one line."""

from __future__ import annotations

import gzip
import json
import pickle

import pytest

from otel_celery_memory.captures.format import dump_capture, load_capture
from otel_celery_memory.captures.model import CaptureError
from tests.unit.captures.documents import DOCUMENT, changed, packed, site, without
from tests.unit.captures.examples import CAPTURE


def refusal(data: bytes) -> str:
    with pytest.raises(CaptureError) as caught:
        load_capture(data)
    message = str(caught.value)
    assert message.isprintable()
    return message


@pytest.mark.parametrize("name", sorted(set(DOCUMENT) - {"format", "version"}))
def test_a_field_that_is_missing_is_named(name: str) -> None:
    assert refusal(without(name)) == f"the capture has no {name!r}"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no capture: not gzip-compressed"),
        (b"{}", "is no capture: not gzip-compressed"),
        (pickle.dumps({}), "is no capture: not gzip-compressed"),
        (dump_capture(CAPTURE)[:-1], "is truncated: its compressed data end too early"),
        (dump_capture(CAPTURE)[:40], "is truncated: its compressed data end too early"),
        (b"\x1f\x8b", "is truncated: its compressed data end too early"),
        (dump_capture(CAPTURE) + b"\0", "is damaged: something follows its compressed data"),
        (dump_capture(CAPTURE) * 2, "is damaged: something follows its compressed data"),
        (
            dump_capture(CAPTURE) + bytes(1 << 17),
            "is damaged: something follows its compressed data",
        ),
        (b"\x1f\x8b" + bytes(60), "is damaged: its compressed data are not valid"),
        (
            dump_capture(CAPTURE)[:-8] + bytes(8),
            "is damaged: its compressed data are not valid",
        ),
        (gzip.compress(b"", mtime=0), "is no capture: not JSON"),
        (gzip.compress(b"\xff\xfe", mtime=0), "is no capture: not JSON"),
        (gzip.compress(json.dumps(DOCUMENT).encode("utf-16"), mtime=0), "is no capture: not JSON"),
        (
            gzip.compress(b"[]", mtime=0),
            "is no capture: its format is not otel_celery_memory.capture",
        ),
        (packed({}), "is no capture: its format is not otel_celery_memory.capture"),
        (changed(format=[]), "is no capture: its format is not otel_celery_memory.capture"),
        (without("version"), "is no capture: version None is none"),
        (changed(version=True), "is no capture: version True is none"),
        (changed(version=0), "is no capture: version 0 is none"),
        (changed(version="1"), "is no capture: version '1' is none"),
        (
            changed(version=2, kind=None),
            "has version 2 of the format, this release reads up to 1: "
            "use a newer otel-celery-memory",
        ),
        (
            changed(kind="\x1b[2J" + "x" * 99),
            f"the capture's kind is '\\x1b[2J{'x' * 36}...', not one of runs, partial, heap",
        ),
        (changed(worker=1), "the capture: 'worker' should be a string, not 1"),
        (changed(taken_ns=-1), "the capture: 'taken_ns' should be an integer from 0, not -1"),
        (
            changed(taken_ns=2**63),
            "the capture: 'taken_ns' should be an integer from 0, not 9223372036854775808",
        ),
        (changed(frames=True), "the capture: 'frames' should be an integer from 1, not True"),
        (changed(frames=1.0), "the capture: 'frames' should be an integer from 1, not 1.0"),
        (changed(duration_s="1"), "the capture: 'duration_s' should be a number, not '1'"),
        (changed(duration_s=-1), "the capture: 'duration_s' should be a number of seconds, not -1"),
        (changed(duration_s=float("nan")), "is no capture: NaN is no number"),
        (changed(duration_s=float("-inf")), "is no capture: -Infinity is no number"),
        (
            gzip.compress(json.dumps(DOCUMENT).replace("30.5", "1e999").encode()),
            "the capture: 'duration_s' should be a number of seconds, not inf",
        ),
        (changed(other_bytes=10**30), "is no capture: an integer is too large"),
        (changed(more=10**4000), "is no capture: an integer is too large"),
        (changed(processes={}), "the capture: 'processes' should be a list, not an object"),
        (changed(processes=[1]), "process 0 should be an object"),
        (changed(processes=[{}]), "process 0 has no 'slot'"),
        (changed(runs=[]), "the capture: 'runs' should be an object, not a list"),
        (
            changed(runs={"a": None}),
            "the capture: 'runs' should be an object of integers from 0, not an object",
        ),
        (changed(sites=None), "the capture: 'sites' should be a list, not None"),
        (changed(sites=[[]]), "site 0 should be an object"),
        (site(line=-1), "site 0: 'line' should be an integer from 0, not -1"),
        (site(function=5), "site 0: 'function' should be a string, not 5"),
        (site(size_bytes=None), "site 0: 'size_bytes' should be an integer, not None"),
        (site(stack=[["a"]]), "site 0: each frame of 'stack' should be [file, line]"),
        (site(stack=[["a", "1"]]), "site 0: each frame of 'stack' should be [file, line]"),
        (site(stack=["ab"]), "site 0: each frame of 'stack' should be [file, line]"),
        (
            gzip.compress(b"[" * 200_000),
            "is nested too deeply or too large to be a capture",
        ),
        (
            gzip.compress(b'{"a":' * 200_000),
            "is nested too deeply or too large to be a capture",
        ),
    ],
)
def test_a_file_that_is_no_capture_gives_an_error_of_one_line(data: bytes, message: str) -> None:
    assert refusal(data) == message
