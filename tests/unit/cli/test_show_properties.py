"""``show`` and ``diff`` of any captures: each is shown, in lines that a terminal takes."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_celery_memory.captures.comparison import GROUPINGS
from otel_celery_memory.captures.model import Capture
from tests.unit.captures.arbitrary import CAPTURES
from tests.unit.cli.running import Command

REFUSED = 2
# Each example writes the files that it shows, and costs more than reading them.
on_the_same_files = settings(
    max_examples=settings().max_examples // 4,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def shown(text: str) -> list[str]:
    lines = text.split("\n")
    assert all(line.isprintable() for line in lines)
    return lines


@on_the_same_files
@given(capture=CAPTURES, by=st.sampled_from(GROUPINGS))
def test_any_capture_is_shown_in_printable_lines_and_as_json(
    command: Command, capture: Capture, by: str
) -> None:
    path = command.file("a", capture)
    told = command("show", path, "--by", by)
    assert (told.code, told.err) == (0, "")
    assert all(len(line) <= 100 for line in shown(told.out))
    told = command("show", path, "--by", by, "--json")
    assert (told.code, told.err, told.out.isascii()) == (0, "", True)
    assert json.loads(told.out)["capture"]["worker"] == capture.worker


@on_the_same_files
@given(before=CAPTURES, after=CAPTURES, by=st.sampled_from(GROUPINGS))
def test_any_two_captures_are_compared_or_refused_in_one_line(
    command: Command, before: Capture, after: Capture, by: str
) -> None:
    told = command("diff", command.file("a", before), command.file("b", after), "--by", by)
    assert told.code in (0, REFUSED)
    shown(told.out)
    assert len(shown(told.err)) == (1 if told.code == 0 else 2)
    assert before.kind == after.kind or told.code == REFUSED
