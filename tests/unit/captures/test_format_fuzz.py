"""The reader under seeded random damage: a capture or a `CaptureError`, and nothing else."""

from __future__ import annotations

import gzip
import json
import random
from typing import Any

import pytest

from otel_celery_memory.captures.format import dump_capture, load_capture
from otel_celery_memory.captures.model import Capture, CaptureError
from otel_celery_memory.captures.pprof import dump_pprof
from tests.unit.captures.examples import CAPTURE

ODD: tuple[Any, ...] = (
    7,
    "x",
    None,
    True,
    0,
    -1,
    2**63 - 1,
    2**63,
    -(2**63),
    10**400,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "\x1b]0;title\x07",
    "\udcff",
    [],
    {},
    [[]],
    {"": None},
)


def read(data: bytes) -> Capture | None:
    """The capture, ``None`` for a refusal; anything else that is raised fails the test."""
    try:
        return load_capture(data)
    except CaptureError as error:
        assert str(error).isprintable()
        return None


def mutated(value: Any, chance: random.Random) -> Any:
    """The document with one value somewhere in it replaced, doubled or taken out."""
    if isinstance(value, (dict, list)) and value and chance.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = chance.choice(keys)
        made = value.copy()
        if chance.random() < 0.15:
            del made[key]
        else:
            made[key] = mutated(value[key], chance)
        return made
    if isinstance(value, list) and chance.random() < 0.3:
        return value * 3
    return chance.choice(ODD)


@pytest.mark.parametrize("seed", range(20))
def test_a_document_with_values_replaced_is_read_or_refused(seed: int) -> None:
    chance = random.Random(seed)
    document = json.loads(gzip.decompress(dump_capture(CAPTURE)))
    read_well = 0
    for _ in range(150):
        value = document
        for _ in range(chance.randrange(1, 4)):
            value = mutated(value, chance)
        found = read(gzip.compress(json.dumps(value).encode(), 1))
        if found is not None:
            read_well += 1
            # What was let in can be written again, and shown to a profiler.
            assert load_capture(dump_capture(found)) == found
            assert dump_pprof(found)
    # Some values may be anything of their kind: else nothing was tried beyond the first check.
    assert read_well > 0


@pytest.mark.parametrize("seed", range(20))
def test_text_with_bytes_changed_is_read_or_refused(seed: int) -> None:
    chance = random.Random(seed)
    text = gzip.decompress(dump_capture(CAPTURE))
    for _ in range(100):
        changed = bytearray(text)
        for _ in range(chance.randrange(1, 5)):
            at = chance.randrange(len(changed))
            changed[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
        read(gzip.compress(bytes(changed), 1))


@pytest.mark.parametrize("seed", range(20))
def test_a_file_with_bytes_changed_cut_out_or_put_in_is_refused(seed: int) -> None:
    chance = random.Random(seed)
    data = dump_capture(CAPTURE)
    for _ in range(100):
        # Behind the ten bytes of the header, of which some say nothing that matters.
        at = chance.randrange(10, len(data))
        end = min(at + chance.randrange(4), len(data))
        changed = data[:at] + chance.randbytes(chance.randrange(1, 4)) + data[end:]
        if changed != data:
            assert read(changed) is None


def test_every_beginning_of_a_file_is_refused() -> None:
    data = dump_capture(CAPTURE)
    assert [read(data[:end]) for end in range(len(data))] == [None] * len(data)


@pytest.mark.parametrize("seed", range(20))
def test_any_bytes_behind_a_header_of_gzip_are_refused(seed: int) -> None:
    chance = random.Random(seed)
    header = dump_capture(CAPTURE)[:10]
    assert read(header + chance.randbytes(chance.randrange(5_000))) is None
