"""``go tool pprof`` reads an exported capture: the line and its bytes, the tasks, the stacks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from otel_celery_memory.captures.directory import CaptureDirectory
from otel_celery_memory.cli import main
from tests.processes import require
from tests.unit.captures.examples import CAPTURE, LEAK


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile as ``show --pprof`` exports it from a capture file."""
    directory = tmp_path_factory.mktemp("pprof")
    saved = CaptureDirectory(directory / "captures").save(CAPTURE)
    out = directory / "exported.pprof.gz"
    assert main(["show", str(saved), "--pprof", str(out)]) == 0
    return out


def pprof(*arguments: str | Path) -> str:
    """What ``go tool pprof`` prints."""
    done = subprocess.run(
        [require("go", "Go's toolchain, 1.25 or newer"), "tool", "pprof", *arguments],
        capture_output=True,
        text=True,
        # Go builds it when it is called for the first time.
        timeout=900,
        check=False,
        # Else it would look for a configuration, and keep profiles, in the user's home.
        env={**os.environ, "PPROF_TMPDIR": os.fspath(Path(arguments[-1]).parent)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def row(output: str, end: str) -> list[str]:
    """The words of the one line that ends so."""
    (found,) = (line for line in output.splitlines() if line.endswith(end))
    return found.split()


def test_top_names_the_line_that_allocated_and_its_bytes(profile: Path) -> None:
    top = pprof("-top", "-lines", "-unit=b", profile)
    assert "Type: inuse_space\n" in top
    assert "Time: 2026-11-20 10:15:00 UTC\n" in top
    flat, share, *_ = row(top, "/usr/lib/python3.11/json/encoder.py:200")
    assert (flat, share) == (f"{LEAK.size_bytes}B", "100%")
    # The line that called it holds as much, none of it by itself.
    owner = row(top, "refresh /srv/shop/app/feeds.py:41")
    assert (owner[0], owner[3]) == ("0", f"{LEAK.size_bytes}B")


def test_top_of_objects_counts_blocks(profile: Path) -> None:
    top = pprof("-top", "-sample_index=inuse_objects", profile)
    assert row(top, "refresh")[3] == str(LEAK.blocks + 2)


def test_tasks_are_tags(profile: Path) -> None:
    tags = pprof("-tags", "-unit=b", profile)
    assert row(tags, ": feeds.refresh")[0] == f"{LEAK.size_bytes + 2_048}B"


def test_the_stack_is_whole(profile: Path) -> None:
    traces = pprof("-traces", profile)
    stack = [line.split()[-1] for line in traces.splitlines() if line.strip()]
    leaf = stack.index("json/encoder.py:200")
    assert stack[leaf : leaf + 3] == ["json/encoder.py:200", "refresh", "app/tasks.py:7"]


def test_comments_say_what_the_numbers_are(profile: Path) -> None:
    assert pprof("-comments", profile).splitlines()[:3] == [
        "worker: celery@web-1",
        "kind: runs (left alive by traced runs, added up)",
        "reason: asked for by inspect",
    ]
