"""Two tasks leak, one nine times as much as the other, beside one that is noisy."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

_large: list[str] = []
_small: list[str] = []
_RATES = {"archive": 10, "note": 10, "noise": 30}
CASES = (Case("two leaks, 90 to 10", "archive", _RATES, also=("note",), holder=("_large",)),)


@app.task
def archive(number: int) -> None:
    """Keeps 9 KB."""
    _large.append(str(number).rjust(9_000))  # the line


@app.task
def note(number: int) -> None:
    """Keeps 1 KB: it leaks too."""
    _small.append(str(number).rjust(1_000))


@app.task
def noise(number: int) -> int:
    """Runs often, and keeps nothing."""
    return len([str(n) for n in range(number, number + 300)])
