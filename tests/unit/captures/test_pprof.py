"""The profile of a capture, decoded by protobuf's own runtime."""

from __future__ import annotations

from dataclasses import replace

import pytest

from otel_celery_memory.captures.pprof import dump_pprof, number, varint
from tests.unit.captures.examples import CACHE, CAPTURE, FREED, LEAK, TAKEN_NS
from tests.unit.captures.profile_proto import DecodedProfile, DecodedSample, decode_profile

TASKS = "/srv/shop/app/tasks.py"
FEEDS = "/srv/shop/app/feeds.py"
ENCODER = "/usr/lib/python3.11/json/encoder.py"


def test_a_capture_becomes_samples_with_whole_stacks_the_leaf_first() -> None:
    assert decode_profile(dump_pprof(CAPTURE)) == DecodedProfile(
        sample_types=[("inuse_objects", "count"), ("inuse_space", "bytes")],
        default_sample_type="inuse_space",
        time_nanos=TAKEN_NS,
        duration_nanos=30_500_000_000,
        comments=[
            "worker: celery@web-1",
            "kind: runs (left alive by traced runs, added up)",
            "reason: asked for by inspect",
            "traced runs of feeds.refresh: 20",
            "traced runs of mail.send: 4",
        ],
        samples=[
            DecodedSample(
                {"inuse_objects": 20_480, "inuse_space": 10_485_760},
                (
                    ("json/encoder.py:200", ENCODER, 200),
                    ("refresh", FEEDS, 41),
                    ("app/tasks.py:7", TASKS, 7),
                ),
                {"task": "feeds.refresh"},
            ),
            DecodedSample(
                {"inuse_objects": 2, "inuse_space": 2_048},
                (("refresh", FEEDS, 50),),
                {"task": "feeds.refresh"},
            ),
            DecodedSample(
                {"inuse_objects": -1, "inuse_space": -512},
                (("app/mail.py:9", "/srv/shop/app/mail.py", 9),),
                {"task": "mail.send"},
            ),
            DecodedSample(
                {"inuse_objects": 3, "inuse_space": 300}, (("(other sites)", "", 0),), {}
            ),
        ],
        locations=6,
        functions=5,
    )


def test_a_site_of_no_task_has_no_label_and_no_other_sites_no_sample() -> None:
    capture = replace(
        CAPTURE, sites=(replace(FREED, task=""),), runs={}, other_bytes=0, other_blocks=0
    )
    profile = decode_profile(dump_pprof(capture))
    assert [sample.labels for sample in profile.samples] == [{}]
    assert len(profile.comments) == 3


def test_a_capture_of_nothing_is_a_profile_of_nothing() -> None:
    capture = replace(
        CAPTURE, worker="", sites=(), runs={}, other_bytes=0, other_blocks=0, duration_s=0.0
    )
    profile = decode_profile(dump_pprof(capture))
    assert (profile.samples, profile.locations, profile.duration_nanos) == ([], 0, 0)
    assert len(profile.comments) == 2


def test_the_same_stack_in_two_tasks_is_two_samples_of_the_same_locations() -> None:
    sites = (CACHE, replace(CACHE, task="other.task"))
    profile = decode_profile(dump_pprof(replace(CAPTURE, sites=sites, other_bytes=0)))
    assert [sample.labels["task"] for sample in profile.samples[:2]] == [
        "feeds.refresh",
        "other.task",
    ]
    assert profile.samples[0].frames == profile.samples[1].frames


def test_a_name_that_is_no_utf_8_becomes_one_that_protobuf_takes() -> None:
    site = replace(LEAK, task="a\udcffb", stack=(("/srv/\ud800.py", 1),))
    (sample, _) = decode_profile(dump_pprof(replace(CAPTURE, sites=(site,)))).samples
    assert sample.labels == {"task": "a?b"}
    assert sample.frames == (("/srv/?.py:1", "/srv/?.py", 1),)


def test_the_same_capture_makes_the_same_profile() -> None:
    turned = replace(CAPTURE, runs=dict(reversed(list(CAPTURE.runs.items()))))
    assert dump_pprof(turned) == dump_pprof(CAPTURE)


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (0, b"\0"),
        (1, b"\1"),
        (127, b"\x7f"),
        (128, b"\x80\1"),
        (300, b"\xac\2"),
        (2**63 - 1, b"\xff" * 8 + b"\x7f"),
        (-1, b"\xff" * 9 + b"\1"),
        (-(2**63), b"\x80" * 9 + b"\1"),
    ],
)
def test_integers_are_written_as_the_protobuf_encoding_says(value: int, data: bytes) -> None:
    assert varint(value) == data
    assert number(1, value) == (b"\x08" + data if value else b"")
