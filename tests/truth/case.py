"""A case: tasks, how often each of them runs, and what is true of their memory."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from ctypes.util import find_library
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.truth.findings import Finding

MARK = "# the line"
"""Ends each line of a case's source that a person may be sent to: mostly one."""
ANY = "any"
"""In the place of a task: what leaks is a receiver of signals, and runs with each of them."""
BESIDE: Mapping[str, float] = {"tests.truth.app.healthy": 8, "tests.truth.app.spike": 1}
"""Runs a second of the tasks of `tests.truth.app` that each case runs beside its own."""


@dataclass(frozen=True)
class Case:
    """What to run, and the right answer.

    ``leaks`` is the task that leaks most, `ANY`, or ``None`` if nobody does; every other task that
    is not in ``also`` is innocent. ``rates`` are runs a second, at most: a busy machine takes
    longer for as many runs. ``has_line`` is false where no line of Python can be told. ``shows`` is
    what must be seen beside the task and the line.

    A verdict has to say its kind and where it is, any of ``kinds`` and of ``where``; what holds the
    objects, any name of ``holder``, if something does; and in which runs it leaks, ``condition``.
    Tasks in ``fills``, or places as in ``where``, grow until something is full: they may be
    suspected, and no more than that.
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
    shows: tuple[Finding, ...] = ()
    arguments: Mapping[str, Callable[[int], Sequence[Any]]] = field(default_factory=dict)
    """What each message of a task has, by its number; the number alone if it is not here."""
    at_most: Mapping[str, int] = field(default_factory=dict)
    """Messages of a task, where they are to end."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """How the messages of a task are sent, such as with a countdown."""
    census: str | None = None
    """The task of which a census of objects is ordered at half time."""
    kinds: tuple[str, ...] = ("python",)
    where: tuple[str, ...] = ("task",)
    holder: tuple[str, ...] = ()
    condition: str = ""
    fills: tuple[str, ...] = ()
    ends: bool = False
    """Whether it stops leaking before the case is over."""

    @property
    def missing(self) -> tuple[str, ...]:
        """What it needs and this machine does not have."""
        return tuple(name for name in self.needs if not (find_spec(name) or find_library(name)))


@dataclass(frozen=True)
class Program:
    """The application that a worker runs, as Celery's ``--app`` names it.

    ``path`` is where to import it from, ``beside`` the rates of tasks that it has beside the
    case's own, ``before`` what a first version of this package said of it. ``imports`` are modules
    of those tasks, if they are not the application's.
    """

    app: str = "tests.truth.app"
    path: Path | None = None
    beside: Mapping[str, float] = field(default_factory=lambda: BESIDE)
    before: str = ""
    imports: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shape:
    """A case with the module that its tasks are in, and its lines, as ``file.py:12``.

    Any of ``lines`` is right; there are none where nobody leaks or no line can be told.
    """

    case: Case
    module: str
    lines: tuple[str, ...]
    program: Program = field(default_factory=Program)

    def full_name(self, task: str) -> str:
        """The name that Celery has for one of the case's own tasks."""
        return f"{self.module}.{task}"

    @property
    def all_rates(self) -> Mapping[str, float]:
        """Runs a second by the full name of each task."""
        own = {self.full_name(task): rate for task, rate in self.case.rates.items()}
        return {**self.program.beside, **own}


def shapes(cases: ModuleType | None = None) -> tuple[Shape, ...]:
    """Every case of `tests.truth.cases`, or of another folder of cases.

    Modules that need what is not installed are imported too. So a case's module imports what is not
    in the standard library in its tasks.
    """
    from tests.truth import cases as own

    folder = cases or own
    found = []
    for info in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}."):
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
