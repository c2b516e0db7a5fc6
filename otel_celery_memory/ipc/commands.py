"""What the main process orders those that run tasks to do, and what these keep of tracing."""

from __future__ import annotations

from dataclasses import dataclass

TRACING_MODES = ("budget", "always", "off")
CAPTURE_RUNS_MAX = 10_000
CAPTURE_SECONDS_MAX = 600.0


@dataclass(frozen=True)
class Balance:
    """What the process in a slot earned and spent: seconds of task time and of tracing.

    ``recent_*`` have decayed until ``at_s`` on the monotonic clock; ``task_s`` and ``spent_s`` are
    totals since the worker started. ``asked_s`` is when it was last asked whether a run is traced,
    on the clock of the sampler's waits; ``run_s`` is how long a run took lately, of any task, and
    ``first_s`` the least that a first run may cost to be seen whole, as the last one traced shows.
    """

    task_s: float = 0.0
    spent_s: float = 0.0
    recent_task_s: float = 0.0
    recent_spent_s: float = 0.0
    at_s: float = 0.0
    asked_s: float = 0.0
    run_s: float = 0.0
    first_s: float = 0.0


@dataclass(frozen=True)
class Orders:
    """What the main process wants of those that run tasks.

    ``mode`` is empty where the settings' is meant. A capture is of the next ``runs`` runs in each
    process, or of those that begin until ``until_s`` on the monotonic clock where ``runs`` is 0;
    none of them is slowed by more than ``allowance_s``. ``capture`` is 0 where there is none.
    ``by_signal`` says who asked for it.
    """

    mode: str = ""
    capture: int = 0
    runs: int = 0
    by_signal: bool = False
    until_s: float = 0.0
    allowance_s: float = 0.0
