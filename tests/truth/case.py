"""A case: tasks, how often each of them runs, and what is true of their memory."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from ctypes.util import find_library
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

MARK = "# the line"
"""Ends each line of a case's source that a person may be sent to: mostly one."""
ANY = "any"
"""In the place of a task: what leaks is a receiver of signals, and runs with each of them."""
BESIDE: Mapping[str, float] = {"healthy": 8, "spike": 1}
"""Runs a second of the tasks of `tests.truth.app` that each case runs beside its own."""


@dataclass(frozen=True)
class Case:
    """What to run, and the right answer.

    ``leaks`` is the task that leaks most, `ANY`, or ``None`` if nobody does; every other task that
    is not in ``also`` is innocent. ``rates`` are runs a second, at most: a busy machine takes
    longer for as many runs. ``has_line`` is false where no line of Python can be told.
    """

    name: str
    leaks: str | None
    rates: Mapping[str, float]
    also: tuple[str, ...] = ()
    seconds: float = 160
    worker: tuple[str, ...] = ("--concurrency=2",)
    environ: Mapping[str, str] | None = None
    has_line: bool = True
    needs: tuple[str, ...] = ()
    """Modules and libraries of C that the tests' usual environment does not have."""

    @property
    def missing(self) -> tuple[str, ...]:
        """What it needs and this machine does not have."""
        return tuple(name for name in self.needs if not (find_spec(name) or find_library(name)))


@dataclass(frozen=True)
class Shape:
    """A case with the module that its tasks are in, and its lines, as ``file.py:12``.

    Any of ``lines`` is right; there are none where nobody leaks or no line can be told.
    """

    case: Case
    module: str
    lines: tuple[str, ...]

    @property
    def all_rates(self) -> Mapping[str, float]:
        """Runs a second by the full name of each task."""
        beside = {f"tests.truth.app.{task}": rate for task, rate in BESIDE.items()}
        own = {f"{self.module}.{task}": rate for task, rate in self.case.rates.items()}
        return {**beside, **own}


def shapes() -> tuple[Shape, ...]:
    """Every case of `tests.truth.cases`; modules that need what is not installed are imported too.

    So a case's module imports what is not in the standard library in its tasks.
    """
    from tests.truth import cases

    found = []
    for info in pkgutil.iter_modules(cases.__path__, "tests.truth.cases."):
        module = importlib.import_module(info.name)
        lines = marked_lines(module)
        for case in module.CASES:
            told = case.leaks is not None and case.has_line
            if told and not lines:
                raise ValueError(f"{info.name} has no {MARK!r}")
            found.append(Shape(case, info.name, lines if told else ()))
    return tuple(found)


def marked_lines(module: ModuleType) -> tuple[str, ...]:
    """The lines of a module's source that end with `MARK`, as ``file.py:12``."""
    path = Path(inspect.getfile(module))
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(f"{path.name}:{at}" for at, text in enumerate(lines, 1) if text.endswith(MARK))
