"""The list of hostile tasks, and what each of them asks of the worker that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

ORDINARY = ("prefork", "solo", "threads")
EVERY_POOL = (*ORDINARY, "gevent", "eventlet")
PREFORK = ("prefork",)


@dataclass(frozen=True)
class Hostile:
    """A task, and how it is run.

    It gets a directory of its own, as text, and returns what it saw, as JSON can say it. What it
    returns, the files that it leaves there, how its process ends and what that process is left
    with must be the same with and without us; so nothing that it returns may depend on chance, on
    a pid or on the time.
    """

    function: Callable[..., Any]
    pools: tuple[str, ...] = ORDINARY
    runs: int = 2
    """One after another in one process. The first one of a task is likely to be traced."""
    spoils: bool = False
    """Whether its process can do nothing else afterwards: each run gets a child of its own, and
    there is one unless more are asked for."""
    ends_worker: bool = False
    """Whether its worker ends without us, too: it has one of its own."""
    keeps_functions: bool = False
    """Whether its worker imports functions of ``tracemalloc`` by names of its own."""
    undo: Callable[[], None] | None = None
    """Called in its process afterwards, so that the next hostile task finds what this one found."""
    long: bool = False
    """Whether it takes many seconds in a worker without us, too: `make test-long`."""
    task: Mapping[str, Any] = field(default_factory=dict)
    """Options of ``app.task``."""
    message: Mapping[str, Any] = field(default_factory=dict)
    """Options of ``apply_async``."""

    @property
    def shares_worker(self) -> bool:
        """Whether it runs in one worker with others of its kind."""
        return not (self.long or self.ends_worker or self.keeps_functions)

    @property
    def name(self) -> str:
        """What its function is called."""
        return self.function.__name__

    @property
    def task_name(self) -> str:
        """What Celery calls it."""
        return str(self.task.get("name") or f"hostile.{self.name}")


HOSTILE: dict[str, Hostile] = {}
"""All of them, by name, in the order in which their modules are read."""


def hostile(**asked: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put a function on the list; takes the fields of `Hostile`."""

    if asked.get("spoils"):
        asked = {"pools": PREFORK, "runs": 1, **asked}

    def listed(function: Callable[..., Any]) -> Callable[..., Any]:
        entry = Hostile(function, **asked)
        assert entry.name not in HOSTILE, f"two hostile tasks are called {entry.name}"
        HOSTILE[entry.name] = entry
        return function

    return listed
