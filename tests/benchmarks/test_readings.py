"""What contenders write and send is read, and read at its best."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.contenders import CONTENDERS
from benchmarks.outputs import Outputs, collected
from benchmarks.pprof import Profile, Sample, of_bytes, profiles_of_push, read_file
from benchmarks.readings import (
    READINGS,
    ROOT,
    Reading,
    alive_by_line,
    first_of,
    line_of,
    right_since,
)
from demo.receiver import Event
from otel_celery_memory import conventions as c
from tests.truth.case import Case, Shape
from tests.truth.conclusions import Seen

APPLICATION = str(ROOT / "tests" / "zoo" / "cases" / "list_grows.py")
SHAPE = Shape(Case("a list", "append", {"append": 1}), "cases.list_grows", ("list_grows.py:19",))
BEGAN_S = 1_000.0


def varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def pprof(stacks: list[tuple[list[int], list[int]]]) -> bytes:
    """A profile with two types, and two places: the application's line 19, and a library's."""
    texts = ["", "alloc", "bytes", "heap", APPLICATION, "append", "/lib/json.py", "dumps"]
    body = b"".join(field(1, field(1, kind) + field(2, 2)) for kind in (1, 3))
    for places, values in stacks:
        packed = b"".join(map(varint, values))
        body += field(2, field(1, b"".join(map(varint, places))) + field(2, packed))
    for number, line in ((1, 19), (2, 7)):
        body += field(4, field(1, number) + field(4, field(1, number) + field(2, line)))
    body += field(5, field(1, 1) + field(2, 5) + field(4, 4))
    body += field(5, field(1, 2) + field(2, 7) + field(4, 6))
    return body + b"".join(field(6, text.encode()) for text in texts)


def push(profile: bytes, pid: str) -> bytes:
    label = field(1, b"pid") + field(2, pid.encode())
    return gzip.compress(field(1, field(1, label) + field(2, field(1, gzip.compress(profile)))))


def outputs(directory: Path, **what: Any) -> Outputs:
    otlp = SimpleNamespace(received=SimpleNamespace(points=what.get("points", [])))
    requests = SimpleNamespace(requests=what.get("requests", []))
    return Outputs(directory, cast("Any", otlp), cast("Any", requests))


def seen(ended_s: float = 1_100.0) -> Seen:
    return Seen("", (), (), {}, 100.0, int(BEGAN_S * 1e9), int(ended_s * 1e9), ())


def notes(directory: Path, *written: dict[str, Any]) -> None:
    for each in written:
        with (directory / f"notes.{each['pid']}.jsonl").open("a") as file:
            file.write(json.dumps(each) + "\n")


def test_a_profile_has_values_by_stack_with_the_innermost_place_first() -> None:
    profile = of_bytes(pprof([([2, 1], [10, 300]), ([1], [5, 0])]), 7.0)
    assert profile.types == ("alloc", "heap")
    assert profile.all_samples[0] == Sample(
        (("/lib/json.py", 7, "dumps"), (APPLICATION, 19, "append")), (10, 300)
    )
    assert profile.total("alloc") == 15
    assert [size for _, size in profile.samples("heap")] == [300]
    assert profile.samples("lock") == []


def test_a_negative_value_of_a_profile_is_negative() -> None:
    assert of_bytes(pprof([([1], [-4, 1])]), 0.0).total("alloc") == -4


def test_a_profile_that_is_cut_off_is_refused() -> None:
    data = pprof([([1], [1, 1])])
    with pytest.raises(ValueError, match=r"beyond the end|has no end"):
        of_bytes(data[:-3], 0.0)


def test_a_file_says_of_which_process_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ddtrace.4711.2.pprof"
    path.write_bytes(gzip.compress(pprof([([1], [1, 2])])))
    assert (read_file(path).process, read_file(path).total("heap")) == ("4711", 2)


def test_what_was_pushed_is_read_with_its_process() -> None:
    (profile,) = profiles_of_push(push(pprof([([1], [1, 2])]), "42"), 5.0)
    assert (profile.process, profile.at_s, profile.total("heap")) == ("42", 5.0, 2)


def test_the_innermost_line_of_the_application_is_taken_of_a_stack() -> None:
    library, application = ("/lib/json.py", 7, "dumps"), (APPLICATION, 19, "append")
    assert line_of([library, application, (APPLICATION, 3, "outer")]) == "list_grows.py:19"
    assert line_of([library]) == ""
    assert alive_by_line([((library, application), 5), ((library,), 9)]) == {"list_grows.py:19": 5}


def test_the_largest_of_all_processes_together_stands_first() -> None:
    assert first_of([{"a": 5, "b": 4}, {"b": 2}]) == "b"
    assert first_of([{"a": -5, "b": 0}]) == ""
    assert first_of([]) == ""


def test_it_is_right_since_when_it_stayed_right() -> None:
    said = [(1.0, "x"), (2.0, "y"), (3.0, "x"), (4.0, "x")]
    assert right_since(said, lambda text: text == "x") == 3.0
    assert right_since(said, lambda text: text == "y") is None
    assert right_since(said, lambda text: True) == 1.0


def test_the_guides_recipe_names_the_applications_line_that_grew_most(tmp_path: Path) -> None:
    lines = [["/lib/linecache.py", 1, 9_000], [APPLICATION, 19, 500], [APPLICATION, 5, 100]]
    wrong = [[APPLICATION, 5, 100]]
    notes(
        tmp_path,
        {"at": BEGAN_S + 10, "pid": 1, "snapshot": 200, "traced": 1, "lines": wrong},
        {"at": BEGAN_S + 20, "pid": 1, "snapshot": 300, "traced": 1, "lines": lines},
        {"at": BEGAN_S + 30, "pid": 2, "snapshot": 200, "traced": 1, "lines": lines},
    )
    assert READINGS["guides_1"](SHAPE, seen(), outputs(tmp_path)) == Reading(
        "list_grows.py:19", "line", True, 20.0
    )
    assert collected(CONTENDERS["guides_1"], outputs(tmp_path))["lines"] == 7


def test_rss_names_the_task_that_grew_most_though_another_one_leaks(tmp_path: Path) -> None:
    grown = {"tests.truth.app.spike": [9, 900], "cases.append": [50, 100]}
    notes(tmp_path, {"at": BEGAN_S + 10, "pid": 1, "grown": grown})
    found = READINGS["psutil"](SHAPE, seen(), outputs(tmp_path))
    assert (found.first, found.right, found.text) == ("spike", False, "WRONG: task spike")
    assert collected(CONTENDERS["psutil"], outputs(tmp_path)) == {"tasks read": 59, "names": 2}


def test_profiles_are_compared_with_the_first_one_of_their_process(tmp_path: Path) -> None:
    library, leak = ([2], [0, 900]), [1]
    requests = [
        (BEGAN_S + 10, "/push/Push", push(pprof([library, (leak, [0, 100])]), "1")),
        (BEGAN_S + 20, "/push/Push", push(pprof([library, (leak, [0, 400])]), "1")),
    ]
    found = outputs(tmp_path, requests=requests)
    profiles = [
        Profile(each.at_s, ("alloc", "inuse_space"), each.all_samples, each.process)
        for _, _, body in requests
        for each in profiles_of_push(body, 0.0)
    ]
    assert [each.total("inuse_space") for each in profiles] == [1_000, 1_300]
    assert collected(CONTENDERS["pyroscope"], found)["pushes"] == 2


@pytest.mark.parametrize(
    ("levels", "expected"),
    [([100.0, 130.0], "memory of a process, 1.30 times as at first"), ([100.0, 101.0], "")],
)
def test_system_metrics_say_which_level_grew_and_no_more(
    tmp_path: Path, levels: list[float], expected: str
) -> None:
    points = [
        SimpleNamespace(
            metric="process.memory.usage",
            resource={"service.instance.id": "a"},
            time_ns=int((BEGAN_S + 60 * number) * 1e9),
            value=value,
        )
        for number, value in enumerate(levels)
    ]
    assert READINGS["otel_system"](SHAPE, seen(), outputs(tmp_path, points=points)).first == (
        expected
    )


def test_who_says_nothing_is_not_wrong() -> None:
    assert Reading("").text == "says nothing"
    assert Reading("", broken="no pushes").text == "broke: no pushes"


def test_a_contender_of_which_nothing_arrived_lacks_what_it_claims() -> None:
    contender = CONTENDERS["memray"]
    assert contender.lacks({}) == "files, places with bytes in use"
    assert contender.lacks({"files": 1, "places with bytes in use": 3}) == ""


def test_a_contender_that_is_not_installed_says_so() -> None:
    from dataclasses import replace

    gone = replace(CONTENDERS["memray"], needs=("a-distribution-that-nobody-has",))
    assert gone.missing() == "a-distribution-that-nobody-has is not installed"


def ranked(at_s: float, task: str, line: str, rank: int = 1) -> Event:
    """An allocation site, as telemetry has it."""
    attributes: dict[str, str | int] = {
        "celery.task.name": f"app.{task}",
        c.SITE_NAME: line,
        c.SITE_RANK: rank,
    }
    return Event(c.ALLOCATION_SITE.name, "INFO", "", int(at_s * 1e9), {}, attributes)


def test_before_there_is_a_verdict_ours_is_the_line_that_is_ranked_first(tmp_path: Path) -> None:
    events = (
        ranked(1_020, "healthy", "app.py:3"),
        ranked(1_040, "append", "cases/list_grows.py:19"),
        ranked(1_060, "append", "cases/list_grows.py:19"),
        ranked(1_060, "healthy", "app.py:3", rank=2),
    )
    reading = READINGS["default"](SHAPE, replace(seen(), events=events), outputs(tmp_path))
    assert (reading.right, reading.after_s) == (True, 40)
    assert reading.says == "task and line, not called a leak yet:"
    wrong = (*events, ranked(1_080, "healthy", "cases/list_grows.py:19"))
    reading = READINGS["default"](SHAPE, replace(seen(), events=wrong), outputs(tmp_path))
    assert (reading.right, reading.first) == (False, "healthy list_grows.py:19")
