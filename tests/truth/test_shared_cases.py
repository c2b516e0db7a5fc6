"""Applications beside the repository become shapes with the right answer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.truth.case import ANY
from tests.truth.shared_cases import ANSWERS, SECONDS, shared_shapes

FILE = """\
import os
from celery import Celery
app = Celery(__name__, broker=os.environ["BROKER"])
assert os.environ.get("BARE")
SEEN = []
@app.task
def notify(i): SEEN.append("n" * i)      # THE LINE (one of two)
RATE = {"notify": 15}
ARGS = {"notify": lambda i: (i, "x")}
CAP = {"notify": 40}
OPTIONS = {"notify": lambda i: {"countdown": 7200}}
WORKER = ["-P", "solo"]
ENV = {"SOME": "thing"}
"""


def test_a_file_becomes_a_shape_with_its_rates_its_line_and_the_right_answer(
    tmp_path: Path,
) -> None:
    (tmp_path / "loop_never_run.py").write_text(FILE)
    environ = dict(os.environ)
    (shape,) = shared_shapes(tmp_path)
    assert os.environ == environ
    case, program = shape.case, shape.program
    assert (case.name, case.leaks, case.seconds) == ("shared: loop_never_run", "notify", SECONDS)
    assert shape.lines == ("loop_never_run.py:7",)
    assert shape.all_rates == {"loop_never_run.notify": 15}
    assert case.arguments["notify"](3) == (3, "x")
    assert (case.at_most, case.environ) == ({"notify": 40}, {"SOME": "thing"})
    assert case.options == {"notify": {"ignore_result": False, "countdown": 7_200}}
    assert case.worker == ("-P", "solo")
    assert (program.app, program.path, program.before) == ("loop_never_run", tmp_path, "right")


def test_a_file_that_says_little_runs_two_processes_and_sends_plain_numbers(tmp_path: Path) -> None:
    (tmp_path / "full_cache.py").write_text('RATE = {"stats": 8}\n# THE LINE\n')
    (shape,) = shared_shapes(tmp_path)
    assert shape.case.worker == ("--concurrency=2",)
    assert (shape.case.arguments, shape.case.at_most) == ({}, {})
    assert shape.lines == ()  # nobody leaks there


def test_a_file_that_nothing_is_known_of_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "something_new.py").write_text(FILE)
    with pytest.raises(ValueError, match="nothing is known of something_new"):
        shared_shapes(tmp_path)


def test_every_answer_names_a_task_or_nobody_and_what_the_first_version_said() -> None:
    for name, answer in ANSWERS.items():
        assert answer.leaks is None or answer.leaks == ANY or answer.leaks.isidentifier(), name
        assert answer.before, name
