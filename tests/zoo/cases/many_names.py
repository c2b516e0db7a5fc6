"""Three hundred names of tasks, of which one leaks."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

_kept: list[str] = []
_HEALTHY = tuple(f"job_{number:03}" for number in range(299))
CASES = (
    Case(
        "three hundred names",
        "reconcile",
        {"reconcile": 6, **dict.fromkeys(_HEALTHY, 0.15)},
        holder=("_kept",),
    ),
)


@app.task
def reconcile(number: int) -> None:
    """Keeps 8 KB."""
    _kept.append(str(number).rjust(8_000))  # the line


def _job(number: int) -> int:
    return len([str(step) for step in range(number, number + 100)])


for _name in _HEALTHY:
    app.task(_job, name=f"{__name__}.{_name}")
