"""``show --pprof`` writes a profile: wholly, for the user alone, and over nothing."""

from __future__ import annotations

import stat

import pytest

from otel_celery_memory.captures.comparison import SiteFilter
from otel_celery_memory.captures.pprof import dump_pprof
from tests.unit.captures.examples import CAPTURE
from tests.unit.captures.limits import files_of_at_most
from tests.unit.cli.running import Command


def test_a_profile_of_the_filtered_sites_is_written_for_the_user_alone(command: Command) -> None:
    out = command.directory / "out.pprof.gz"
    printed = command(
        "show", command.file("a", CAPTURE), "--pprof", str(out), "--task=feeds.*", "--top=1"
    )
    assert (printed.code, printed.err) == (0, "")
    assert out.read_bytes() == dump_pprof(SiteFilter(task="feeds.*").apply(CAPTURE))
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


@pytest.mark.parametrize("link", [False, True])
def test_a_profile_overwrites_nothing_and_follows_no_link(command: Command, link: bool) -> None:
    out = command.directory / "out"
    if link:
        out.symlink_to(command.directory / "elsewhere")
    else:
        out.write_bytes(b"precious")
    printed = command("show", command.file("a", CAPTURE), "--pprof", str(out))
    assert (printed.code, printed.out) == (2, "")
    assert printed.err == (f"otel-celery-memory: '{out}' exists already, and is not overwritten\n")
    assert not (command.directory / "elsewhere").exists()
    assert link or out.read_bytes() == b"precious"


def test_a_profile_that_cannot_be_written_is_an_error(command: Command) -> None:
    printed = command("show", command.file("a", CAPTURE), "--pprof", "/proc/self/nothing")
    assert (printed.code, printed.out) == (2, "")
    assert printed.err == (
        "otel-celery-memory: '/proc/self/nothing' cannot be written: No such file or directory\n"
    )


def test_a_profile_that_is_cut_short_is_an_error_and_leaves_no_file(command: Command) -> None:
    out = command.directory / "out"
    path = command.file("a", CAPTURE)
    with files_of_at_most(100):
        printed = command("show", path, "--pprof", str(out))
    assert (printed.code, printed.out) == (2, "")
    assert printed.err == f"otel-celery-memory: '{out}' cannot be written: File too large\n"
    assert not out.exists()
