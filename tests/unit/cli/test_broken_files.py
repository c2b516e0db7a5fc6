"""Broken, truncated, newer or wrong files are one clear line and exit code 2."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from otel_celery_memory.captures.format import dump_capture
from tests.unit.captures.documents import changed
from tests.unit.captures.examples import CAPTURE, LEAK
from tests.unit.cli.running import Command

GOOD = dump_capture(CAPTURE)
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is no capture: not gzip-compressed"),
    "text": (b"hello\n", "is no capture: not gzip-compressed"),
    "truncated": (GOOD[:-20], "is truncated: its compressed data end too early"),
    "damaged": (GOOD[:40] + b"\xff" * 9 + GOOD[49:], "is damaged: its compressed data are "),
    "not JSON": (gzip.compress(b"hello"), "is no capture: not JSON"),
    "another format": (gzip.compress(b'{"format": "x"}'), "is no capture: its format is not "),
    "newer": (changed(version=2), "has version 2 of the format, this release reads up to 1: "),
    "wrong type": (changed(sites=3), "the capture: 'sites' should be a list, not 3"),
    "nested": (gzip.compress(b"[" * 100_000), "is nested too deeply or too large to be "),
    "pickle": (pickle.dumps(print), "loading one runs code that the file brings; pass --trust-"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_cannot_be_read_is_one_line_and_exit_code_2(
    command: Command, case: str
) -> None:
    content, message = BROKEN[case]
    bad, good = command.file("bad", content), command.file("good", CAPTURE)
    for arguments in (["show", bad], ["diff", bad, good], ["diff", good, bad]):
        printed = command(*arguments)
        assert (printed.code, printed.out) == (2, "")
        assert printed.err.startswith(f"otel-celery-memory: '{bad}' ")
        assert message in printed.err
        assert printed.err.count("\n") == 1


def test_a_pickle_that_is_trusted_and_no_snapshot_is_one_line_too(command: Command) -> None:
    bad = command.file("bad", pickle.dumps([1, 2]))
    printed = command("show", bad, "--trust-pickle")
    assert (printed.code, printed.out) == (2, "")
    assert printed.err == f"otel-celery-memory: '{bad}' is no tracemalloc snapshot: TypeError\n"


def test_trusting_pickles_changes_nothing_for_captures(command: Command) -> None:
    good = command.file("good", CAPTURE)
    assert command("show", good, "--trust-pickle") == command("show", good)


def test_a_file_that_is_not_there_is_one_line(command: Command) -> None:
    printed = command("show", "/nowhere/\x1b[2J")
    assert (printed.code, printed.out) == (2, "")
    assert printed.err == (
        "otel-celery-memory: '/nowhere/\\x1b[2J' cannot be read: No such file or directory\n"
    )


def run_script(
    arguments: list[str], environ: Mapping[str, str] | None = None, head: int = 0
) -> tuple[int, bytes, bytes]:
    """Exit code, output and errors of a process; with `head`, of which no more is read."""
    process = subprocess.Popen(
        [sys.executable, "-m", "otel_celery_memory.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environ or {})},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    out = process.stdout.read(head) if head else process.stdout.read()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    return process.wait(), out, err


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_pipe_that_the_reader_closed_causes_no_traceback(
    command: Command, options: list[str]
) -> None:
    document = json.loads(gzip.decompress(GOOD))
    site = document["sites"][0]
    sites = [{**site, "name": f"app/feeds.py:{n}", "line": n} for n in range(5_000)]
    path = command.file("large", changed(sites=sites))
    code, out, err = run_script(["show", path, "--top=5000", *options], head=10)
    assert (code, len(out), err) == (141, 10, b"")


def test_a_closed_pipe_that_is_noticed_at_the_last_flush_is_no_traceback_either(
    command: Command,
) -> None:
    path = command.file("small", CAPTURE)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "otel_celery_memory.cli", "show", path],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_letters_that_the_terminal_does_not_have_are_written_in_others(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(changed(worker="celery@Übung"))
    code, out, err = run_script(["show", str(path)], {"PYTHONIOENCODING": "ascii"})
    assert (code, err) == (0, b"")
    assert out.startswith(rb"Capture of celery@\xdcbung: runs")
    assert LEAK.name.encode() in out
