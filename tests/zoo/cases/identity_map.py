"""A session of a mapper that is never closed keeps each entity that it loaded."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

CASES = (Case("an identity map", "load", {"load": 12}, holder=("identity_map", "_session")),)


class _Entity:
    def __init__(self, number: int) -> None:
        self.number = number
        self.text = str(number).rjust(400)  # the line


class _Session:
    def __init__(self) -> None:
        self.identity_map: dict[tuple[type, int], _Entity] = {}

    def get(self, number: int) -> _Entity:
        return self.identity_map.setdefault((_Entity, number), _Entity(number))  # the line


_session = _Session()


@app.task
def load(number: int) -> int:
    """Loads ten entities that nobody loaded before."""
    return sum(len(_session.get(number * 10 + step).text) for step in range(10))
