"""The matrix finds the CPythons that are there, combines them, and tells only what was run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from matrix.combinations import CELERY, combinations
from matrix.interpreters import Interpreter, found
from matrix.results import (
    FAILED,
    NOT_RUN,
    PASSED,
    RESULTS,
    Result,
    merged,
    read,
    table,
    write,
)
from matrix.trial import outcome_of, reason_of

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = Interpreter((3, 10, 13), "/old"), Interpreter((3, 13, 0), "/new")


def program(path: Path, says: str, code: int = 0) -> None:
    """A program that says so, whatever it is asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
    path.chmod(0o755)


def test_each_cpython_from_3_10_on_is_found_once_wherever_it_is(tmp_path: Path) -> None:
    versions = tmp_path / "pyenv" / "versions"
    program(versions / "3.10.13" / "bin" / "python3", "CPython 3 10 13 final")
    program(versions / "3.9.18" / "bin" / "python3", "CPython 3 9 18 final")
    program(versions / "pypy" / "bin" / "python3", "PyPy 3 10 14 final")
    program(versions / "3.14" / "bin" / "python3", "CPython 3 14 0 alpha")
    program(tmp_path / "bin" / "python3.13", "CPython 3 13 0 final")
    program(tmp_path / "bin" / "python3.13-config", "CPython 3 13 9 final")
    program(tmp_path / "bin" / "python3.12", "no such version", 127)
    program(tmp_path / "bin" / "python3", "CPython 3 10 13 final")
    environ = {"PYENV_ROOT": str(tmp_path / "pyenv"), "PATH": f":{tmp_path}/bin:/nonexistent"}
    assert found(environ) == [
        Interpreter((3, 10, 13), f"{versions}/3.10.13/bin/python3"),
        Interpreter((3, 13, 0), f"{tmp_path}/bin/python3.13"),
    ]


def test_a_real_interpreter_tells_its_version(tmp_path: Path) -> None:
    (tmp_path / "python3").symlink_to(sys.executable)
    environ = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    assert [each.version for each in found(environ)] == [sys.version_info[:3]]


def test_all_is_combined_with_all() -> None:
    made = list(combinations([OLD, NEW]))
    assert (len(made), len({each.name for each in made})) == (20, 20)
    assert made[0].constraints()[0] == "celery==5.3.*"
    assert {len(each.constraints()) for each in made if each.otel == "newest"} == {1}


def test_the_lowest_opentelemetry_is_that_of_make_lowest() -> None:
    lowest = (ROOT / "constraints-lowest.txt").read_text()
    pinned = set(re.findall(r"^opentelemetry-\S+", lowest, re.MULTILINE))
    assert set(next(combinations([OLD])).constraints()[1:]) == pinned


@pytest.mark.parametrize(
    ("code", "told", "expected"),
    [
        (0, "....\n1852 passed, 2 warnings in 50.1s", ("passed", "")),
        (
            1,
            "FAILED tests/a.py::test_x - assert 1\nERROR tests/b.py\n1 failed, 1 error in 2s",
            ("failed", "FAILED tests/a.py::test_x; ERROR tests/b.py"),
        ),
        (
            1,
            "SKIPPED [1] tests/a.py:9: no x\n8 passed, 1 skipped in 1s",
            ("failed", "SKIPPED [1] tests/a.py:9: no x"),
        ),
        (1, "not done within 1200 s", ("failed", "not done within 1200 s")),
        (5, "no tests ran in 0.01s", ("failed", "no tests ran in 0.01s")),
        (1, "", ("failed", "no word of why")),
    ],
)
def test_pytests_end_is_the_outcome_and_what_it_names_is_the_reason(
    code: int, told: str, expected: tuple[str, str]
) -> None:
    assert outcome_of(code, told) == expected


def test_pips_error_is_the_reason() -> None:
    told = "warning\nERROR: Cannot install a\nERROR: ResolutionImpossible: for help visit\n  hint\n"
    assert reason_of(told) == "ResolutionImpossible: for help visit"
    assert (
        reason_of("ERROR: x from https://a.b/c (in '/srv/d') failed")
        == "x from ... (in '...') failed"
    )
    assert (reason_of("killed\n"), reason_of("")) == ("killed", "no word of why")


def result(
    python: str, celery: str, otel: str, outcome: str, why: str = "", *, commit: str = "abc"
) -> Result:
    version = "" if outcome == "not run" else {"lowest": "1.38.0", "newest": "1.45.2"}[otel]
    return Result(python, celery, otel, f"{celery}.1", version, outcome, why, "2026-11-21", commit)


RESULTS_OF_TWO = [
    result("3.13.0", "5.3", "newest", "not run", "a and b do not go together"),
    result("3.10.13", "5.7", "newest", "failed", "FAILED tests/a.py::test_x"),
    result("3.10.13", "5.3", "lowest", "passed"),
]
TABLE = """\
| CPython | OpenTelemetry | Celery 5.3 | Celery 5.4 | Celery 5.5 | Celery 5.6 | Celery 5.7 |
| --- | --- | --- | --- | --- | --- | --- |
| 3.10.13 | 1.38.0 | passed | not run | not run | not run | not run |
| 3.10.13 | 1.45.2 | not run | not run | not run | not run | failed |
| 3.13.0 | newest | not run | not run | not run | not run | not run |

- 2026-11-21, commit abc: all that was tried
- CPython 3.10.13, Celery 5.7, newest OpenTelemetry: FAILED tests/a.py::test_x
- CPython 3.13.0, Celery 5.3, newest OpenTelemetry: a and b do not go together"""


def test_what_was_run_is_in_the_table_and_what_was_not_is_not_claimed() -> None:
    assert table(RESULTS_OF_TWO) == TABLE


def test_what_was_run_at_another_time_is_told_with_its_date_and_commit() -> None:
    told = table([*RESULTS_OF_TWO[2:], result("3.10.13", "5.4", "lowest", "passed", commit="def")])
    assert told.splitlines()[-2:] == [
        "- 2026-11-21, commit abc: CPython 3.10.13, Celery 5.3, lowest OpenTelemetry",
        "- 2026-11-21, commit def: CPython 3.10.13, Celery 5.4, lowest OpenTelemetry",
    ]


def test_results_are_kept_and_a_new_one_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert read(path) == []
    write(RESULTS_OF_TWO, path)
    again = result("3.10.13", "5.7", "newest", "passed", commit="def")
    write(merged(read(path), again), path)
    assert read(path) == [RESULTS_OF_TWO[2], again, RESULTS_OF_TWO[0]]


def test_the_results_that_are_committed_can_be_read() -> None:
    results = read(RESULTS)
    assert {each.celery for each in results} <= set(CELERY)
    assert {each.outcome for each in results} <= {PASSED, FAILED, NOT_RUN}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", each.date) for each in results)
    assert all(re.fullmatch(r"[0-9a-f]{12}( and changes)?", each.commit) for each in results)
