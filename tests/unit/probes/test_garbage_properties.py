"""The kernel's files by property: whatever is there, reading it raises nothing and ends."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_celery_memory.probes.own_memory import LinuxProcessProbe, open_process_probe
from otel_celery_memory.probes.procfs import read_small
from tests.unit.arbitrary import COUNT
from tests.unit.probes.machine import Machine
from tests.unit.probes.sound import SOUND, numbers, sound_machine
from tests.unit.probes.test_garbage import PIECES

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Each example writes the files that it looks at.
on_one_machine = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
KEYS = sorted({word for text in SOUND.values() for word in text.replace(b":", b" ").split()})
WORDS = st.one_of(
    st.sampled_from([*KEYS, *PIECES, b"unlimited", b"1e3", b"+1", b"1_0", b"\xd9\xa3", b"0::/a"]),
    st.integers().map(lambda number: str(number).encode()),
    st.binary(max_size=6),
)
CONTENTS = st.one_of(
    st.binary(max_size=100),
    st.lists(
        st.tuples(WORDS, st.sampled_from([b" ", b": ", b" kB\n", b"\n", b":"])), max_size=20
    ).map(lambda parts: b"".join(word + end for word, end in parts)),
    st.none(),
    st.just(Path()),
)
"""``None`` is a file that is missing, a path a directory."""


NUMBERS = st.one_of(
    st.sampled_from([b"max", b"", b"-1", b"1e9", b"\xc2\xb2", b"\xd9\xa3", b"9" * 5_000]),
    st.sampled_from(
        [str(2**power - less).encode() for power in (53, 62, 63, 64) for less in (0, 1)]
    ),
    COUNT.map(lambda number: str(number).encode()),
)


def _renumbered(name: str) -> st.SearchStrategy[bytes]:
    """A file in order, but for its numbers."""
    parts = re.split(rb"\d+", SOUND[name])
    return st.lists(NUMBERS, min_size=len(parts), max_size=len(parts)).map(
        lambda numbers: b"".join(part + number for part, number in zip(parts, numbers, strict=True))
    )


def _file(name: str) -> st.SearchStrategy[tuple[str, bytes | Path | None]]:
    return st.tuples(st.just(name), st.one_of(CONTENTS, _renumbered(name)))


FILES = st.lists(st.sampled_from(sorted(SOUND)).flatmap(_file), min_size=2, max_size=6).map(dict)


def put(path: Path, content: bytes | Path | None) -> None:
    """Make the file what it is drawn to be, whatever it was."""
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    if isinstance(content, Path):
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return sound_machine(tmp_path)


# Fifteen files in which a hundred examples would hardly meet.
@settings(on_one_machine, max_examples=3 * settings().max_examples)
@given(contents=FILES)
def test_whatever_the_files_are_reading_them_raises_nothing_and_tells_sane_numbers(
    machine: Machine, contents: dict[str, bytes | Path | None]
) -> None:
    root = machine.proc.parent
    for name, content in contents.items():
        put(root / name, content)
    for number in numbers(machine):
        assert number is None or (isinstance(number, int) and 0 <= number < 2**63)
    for name in contents:
        put(root / name, SOUND[name])


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A /proc with what this process's own probe reads."""
    (tmp_path / "self").mkdir()
    yield tmp_path


@on_one_machine
@given(
    statm=st.one_of(CONTENTS, st.just(b"52340 7001 2200\n")),
    clear_refs=st.sampled_from([b"", None, Path()]),
    status=st.one_of(CONTENTS, COUNT.map(lambda kib: f"Name:\tx\nVmHWM: {kib} kB\n".encode())),
)
def test_a_probe_of_this_process_is_opened_or_replaced_whatever_its_files_are(
    own: Path,
    statm: bytes | Path | None,
    clear_refs: bytes | Path | None,
    status: bytes | Path | None,
) -> None:
    put(own / "self" / "statm", statm)
    put(own / "self" / "clear_refs", clear_refs)
    put(own / "self" / "status", status)
    probe = open_process_probe(own)
    try:
        assert 0 <= probe.rss_bytes() < 2**63
        if probe.resets_peak:
            probe.reset_peak()
            assert isinstance(probe, LinuxProcessProbe)
            assert 0 <= probe.peak_bytes() < 2**63
            # This one is smaller than what runs the tests, whose peak is not its own.
            assert probe._status is not None or probe.rss_bytes() > 7001 * PAGE_BYTES
    finally:
        probe.close()


def test_of_a_file_without_end_a_part_is_read() -> None:
    assert read_small(Path("/dev/zero")) == ""
    assert read_small(Path("/dev/full")) == ""
