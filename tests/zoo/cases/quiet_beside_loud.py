"""One task leaks a little, the other runs ten times as often and allocates much."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

_quiet: list[str] = []
_RATES = {"whisper": 4, "shout": 40}
CASES = (Case("a quiet leak beside a loud task", "whisper", _RATES, holder=("_quiet",)),)


@app.task
def whisper(number: int) -> None:
    """Keeps 4 KB."""
    _quiet.append(str(number).rjust(4_000))  # the line


@app.task
def shout(number: int) -> int:
    """Takes a megabyte or two, in pieces of any size, and frees it."""
    pieces = [bytes(number % 97 * 200 + step) for step in range(150)]
    return sum(map(len, pieces))
