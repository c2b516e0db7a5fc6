"""Some runs of a task take a hundred megabytes and pin a few rows: malloc keeps what was freed."""

from __future__ import annotations

from tests.truth.app import MIB, app
from tests.truth.case import Case
from tests.truth.findings import PeakOf

_pinned: list[list[str]] = []
CASES = (
    Case(
        "a run that balloons",
        None,
        {"dump": 0.8, "mail": 8},
        shows=(PeakOf("dump", 50 * MIB),),
        fills=("dump",),
    ),
)


@app.task
def dump(number: int) -> int:
    """Each fortieth is a large one; of the last two some rows are kept."""
    if number % 40:
        return 0
    rows = [{"id": row, "text": str(row) * 3} for row in range(250_000)]
    _pinned.append([str(row["text"]) for row in rows[::300]])
    del _pinned[:-2]
    return len(rows)


@app.task
def mail(number: int) -> int:
    """Runs in the process that has grown, and did nothing."""
    return sum(len(str(line)) for line in range(number, number + 2_000))
