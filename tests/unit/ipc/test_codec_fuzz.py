"""The decoder under seeded random damage: never raises, finds complete frames."""

from __future__ import annotations

import random

import pytest

from otel_celery_memory.ipc.codec import MAGIC, MAX_FRAME_BYTES, encode, records_in
from otel_celery_memory.ipc.records import Record
from tests.unit.examples import EXAMPLES
from tests.unit.ipc.reading import read_all

_HEADER_BYTES = 10


def damaged(frame: bytes, how: str, chance: random.Random) -> bytes:
    """Bytes that are no valid frame."""
    if how == "torn":
        return frame[: chance.randrange(1, len(frame))]
    if how == "beheaded":
        return frame[chance.randrange(1, len(frame)) :]
    if how == "flipped":
        # In the payload: the header's own bits have a test of their own.
        at = chance.randrange(_HEADER_BYTES * 8, len(frame) * 8)
        return flipped(frame, at)
    if how == "oversized":
        return MAGIC + bytes((1, chance.randrange(12))) + b"\xff\xff" + chance.randbytes(40)
    if how == "magic":
        return MAGIC * chance.randrange(1, 40)
    return chance.randbytes(chance.randrange(1, 3 * MAX_FRAME_BYTES))


def flipped(frame: bytes, bit: int) -> bytes:
    """The frame with one bit inverted."""
    changed = bytearray(frame)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("how", ["torn", "beheaded", "flipped", "oversized", "magic", "foreign"])
@pytest.mark.parametrize("seed", range(20))
def test_whole_frames_around_damage_are_decoded_and_each_damage_is_counted(
    how: str, seed: int
) -> None:
    chance = random.Random(f"{how} {seed}")
    wanted: list[Record] = []
    stream = b""
    damages = chance.randrange(1, 12)
    for _ in range(damages):
        good = chance.choices(EXAMPLES, k=chance.randrange(1, 6))
        wanted += good
        stream += b"".join(map(encode, good))
        stream += damaged(encode(chance.choice(EXAMPLES)), how, chance)
    # A damaged length may promise up to a frame more: what ends the waiting is more frames.
    trailer = [EXAMPLES[0]] * 200
    stream += b"".join(map(encode, trailer))
    assert read_all(stream) == (wanted + trailer, damages)


@pytest.mark.parametrize("seed", range(30))
def test_a_stream_of_any_bytes_never_raises(seed: int) -> None:
    chance = random.Random(seed)
    parts = [
        lambda: chance.randbytes(chance.randrange(200)),
        lambda: MAGIC + bytes((1,)) + chance.randbytes(chance.randrange(60)),
        lambda: flipped(frame := encode(chance.choice(EXAMPLES)), chance.randrange(len(frame) * 8)),
        lambda: encode(chance.choice(EXAMPLES)),
    ]
    stream = b"".join(chance.choice(parts)() for _ in range(500))
    found, damages = read_all(stream)
    assert found
    assert damages > 0


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_no_single_flipped_bit_makes_another_record_of_a_frame(record: Record) -> None:
    frame = encode(record)
    misread = {
        bit: found for bit in range(len(frame) * 8) if (found := records_in(flipped(frame, bit)))
    }
    assert misread == {}
