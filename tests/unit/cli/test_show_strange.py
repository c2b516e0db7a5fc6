"""``show`` of captures that say strange things: readable all the same, and harmless."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.unit.captures.examples import APP, CAPTURE, LEAK
from tests.unit.cli.running import Command


def test_lines_fit_in_a_hundred_columns_and_long_paths_keep_their_ends(command: Command) -> None:
    long = replace(
        LEAK,
        task="some.package." * 9 + "task",
        name="deep/" * 40 + "feeds.py:41",
        stack=((f"/srv/{'deep/' * 40}last.py", 3), (APP, 41)),
        size_bytes=10**17,
        blocks=10**17,
    )
    runs = {f"task.number_{n}": n for n in range(40)}
    capture = replace(CAPTURE, sites=(long,), runs=runs, reason="because " * 40)
    out = command("show", command.file("a", capture), "--by=traceback").out
    assert max(map(len, out.splitlines())) <= 100
    assert "/feeds.py:41 in refresh\n" in out
    assert "/last.py:3\n" in out
    assert "age.task  " in out


def test_text_from_a_file_cannot_control_the_terminal(command: Command) -> None:
    evil = "\x1b]0;owned\x07\r\n\x9b2J\u202e\u2028\udcff"
    site = replace(
        LEAK, task=evil, name=f"{evil}:41", path=evil, function=evil, stack=((evil, 1), (evil, 2))
    )
    capture = replace(
        CAPTURE, sites=(site,), worker=evil, reason=evil, tracing=evil, runs={evil: 1}
    )
    path = command.file("a", capture)
    for by in ("line", "file", "function", "traceback"):
        text = command("show", path, "--by", by).out
        assert all(line.isprintable() for line in text.split("\n"))
    assert json.loads(command("show", path, "--json").out)["capture"]["worker"] == evil
    assert command("show", path, "--json").out.isascii()


def test_a_file_that_says_it_is_from_the_end_of_time_is_shown(command: Command) -> None:
    capture = replace(CAPTURE, taken_ns=2**63 - 1, duration_s=1e9)
    assert "2262-04-11 23:47:16 UTC" in command("show", command.file("a", capture)).out
