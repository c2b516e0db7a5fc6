"""Whatever the files of the kernel contain, reading them raises nothing and tells sane numbers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from otel_celery_memory.probes.procfs import read_start_ticks
from tests.unit.probes.machine import Machine
from tests.unit.probes.sound import SOUND, numbers, sound_machine

PIECES = (
    *(b"max", b"-1", b"9" * 18, b"9" * 30, b"9" * 5_000),
    *(b"\0", b"\xff\xfe", b" ", b"\n", b":", b"kB", b"0"),
)


def damaged(chance: random.Random, content: bytes) -> bytes:
    """The content with a part cut out, put in or replaced."""
    at, length = chance.randrange(len(content) + 1), chance.randrange(8)
    piece = chance.choice([*PIECES, chance.randbytes(chance.randrange(40)), b""])
    return content[:at] + piece * chance.choice([1, 1, 1, 2_000]) + content[at + length :]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return sound_machine(tmp_path)


@pytest.mark.parametrize("name", SOUND)
def test_a_damaged_file_raises_nothing_and_gives_no_strange_number(
    machine: Machine, name: str
) -> None:
    chance = random.Random(name)
    path = machine.proc.parent / name
    for _ in range(60):
        path.write_bytes(damaged(chance, damaged(chance, SOUND[name])))
        for number in numbers(machine):
            # OTLP carries 64 bits, and an exporter fails as a whole for one number of more.
            assert number is None or (isinstance(number, int) and 0 <= number < 2**63)


@pytest.mark.parametrize("name", SOUND)
def test_a_file_that_is_missing_or_a_directory_raises_nothing(machine: Machine, name: str) -> None:
    path = machine.proc.parent / name
    path.unlink()
    list(numbers(machine))
    path.mkdir()
    list(numbers(machine))


def test_a_start_is_read_behind_a_name_that_may_contain_anything(machine: Machine) -> None:
    fields = " ".join(map(str, range(3, 53)))
    (machine.proc / "41" / "stat").write_text(f"41 (a) S) 9 (b) {fields}")
    # The 22nd field, counted from 1 (proc_pid_stat(5)).
    assert read_start_ticks(41, machine.proc) == 22
    assert read_start_ticks(42, machine.proc) is None
