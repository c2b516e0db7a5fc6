"""Applications outside of this repository, each a file, and what is true of each.

A file is one Celery application with the shape of a public report. ``RATE`` is how many of each
task to send a second, ``ARGS`` their arguments by number, ``CAP`` how many at most, ``OPTIONS`` how
they are sent, ``ENV`` and ``WORKER`` (arguments) are the worker's. ``BROKER`` names its Redis, and
with ``BARE`` set it is not instrumented: so it is read by who sends its tasks. A line that ends
with ``# THE LINE``, and maybe more words, is one that a person may be sent to.

The repository's own `tests.truth.cases` have the same shapes: these are read where they are there.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from otel_celery_memory import conventions as c
from tests.truth.case import ANY, Case, Program, Shape
from tests.truth.findings import (
    FilesShown,
    HeldBy,
    HoldsMessages,
    KeptByRuns,
    KeptFree,
    KillsAgain,
    LeavesGarbage,
    LeavesProcesses,
    Losses,
    Lost,
    PeakOf,
)

SECONDS = 120.0
MIB = 1 << 20
_LINE = re.compile(r"#\s*THE LINE\b")
_PLAIN: Mapping[str, str] = {"BROKER": "memory://", "BARE": "1", "NOOTEL": "1"}
_NOTHING_WRONG = "leaks 3 MB a minute in contextlib.py, our own"
_NO_LEAK = "leaks, which is not true"
_NO_LINE = "no line of the user's"
_PART = "a part of it"


@dataclass(frozen=True)
class Answer:
    """What is true of one file, as `Case` has it, and what a first version said of it."""

    leaks: str | None
    before: str
    more: Mapping[str, Any]
    text: str = ""
    """What is in another line that keeps as much, if there is one."""


def _answer(leaks: str | None, before: str, text: str = "", **more: Any) -> Answer:
    return Answer(leaks, before, more, text)


_IMAGES = "PIL"
ANSWERS: Mapping[str, Answer] = {
    "connection_in_receiver": _answer(
        ANY,
        _PART,
        shows=(KeptByRuns(ANY, c.OPEN_FILES_RETAINED, c.OPEN_FILES), FilesShown(60)),
    ),
    "ends_itself": _answer(
        None,
        _PART,
        shows=(Losses((Lost("crunch", "exited", code=0), Lost("hard", "exited", code=7))),),
    ),
    "eta_messages_in_main": _answer(
        None,
        _PART,
        shows=(HoldsMessages("scheduled", "wait for their time", 4_000, 50 * MIB),),
    ),
    "exception_cycle": _answer(None, _NO_LEAK, shows=(LeavesGarbage("validate", 100_000),)),
    "full_cache": _answer(None, _NO_LEAK),
    "lazy_import_recycled": _answer(None, _NO_LEAK, needs=("pandas",)),
    "loop_never_run": _answer("notify", "right"),
    "malloc_arenas": _answer(None, _PART, shows=(KeptFree(4 * MIB),)),
    "nothing_wrong": _answer(None, _NOTHING_WRONG),
    "one_run_balloons": _answer(None, _PART, shows=(PeakOf("export", 100 * MIB),)),
    "orphaned_processes": _answer(None, "nothing", shows=(LeavesProcesses("shoot", 55 * MIB),)),
    "overlapping_gevent": _answer("poll", _PART),
    "pixels_in_c": _answer(
        "thumb", _NO_LINE, needs=(_IMAGES,), census="thumb", shows=(HeldBy("Image", "KEPT"),)
    ),
    "poisoned_message": _answer(None, _PART, shows=(KillsAgain("crawl", 10, 250 * MIB),)),
    "slot_replaced": _answer("ledger", _NO_LEAK),
    "thread_a_run": _answer(
        "fetch",
        _NO_LINE,
        "ThreadPoolExecutor(1)",  # of what is kept, half is the executor, half its thread
        shows=(KeptByRuns("fetch", c.THREADS_RETAINED, c.THREADS),),
    ),
}


def shared_shapes(directory: Path) -> tuple[Shape, ...]:
    """A shape of each file; of one that there is no answer to, an error.

    Files that need what is not installed come without their rates, to be named as not run.
    """
    files = {path.stem: path for path in sorted(directory.glob("*.py"))}
    unknown = sorted(files.keys() - ANSWERS.keys())
    if unknown:
        raise ValueError(f"nothing is known of {', '.join(unknown)} in {directory}")
    return tuple(_shape(name, path) for name, path in files.items())


def _shape(name: str, path: Path) -> Shape:
    answer = ANSWERS[name]
    case = Case(f"shared: {name}", answer.leaks, {}, seconds=SECONDS, **answer.more)
    program = Program(name, path.parent.resolve(), {}, answer.before)
    lines = lines_of(path, answer.text) if case.leaks is not None else ()
    if case.missing:
        return Shape(case, name, lines, program)
    module = _module(name, path)
    given = module.__dict__
    return Shape(
        replace(
            case,
            rates=given["RATE"],
            worker=tuple(given.get("WORKER", case.worker)),
            environ=given.get("ENV"),
            arguments=given.get("ARGS", {}),
            at_most=given.get("CAP", {}),
            options={
                task: {"ignore_result": False, **given.get("OPTIONS", {}).get(task, _no_options)(0)}
                for task in given["RATE"]
            },
        ),
        name,
        lines,
        program,
    )


def _no_options(number: int) -> Mapping[str, Any]:
    return {}


def lines_of(path: Path, other: str = "") -> tuple[str, ...]:
    """The lines that a person may be sent to, as ``file.py:12``; ``other`` is in one more."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(
        f"{path.name}:{at}"
        for at, text in enumerate(lines, 1)
        if _LINE.search(text) or (other and other in text)
    )


def _module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"shared_case_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _environment(_PLAIN):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
