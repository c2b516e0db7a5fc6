"""A framework in debug mode keeps the text of every query."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

CASES = (
    Case("a query log in debug mode", "lookup", {"lookup": 15}, holder=("queries", "_database")),
)


class _Database:
    """As a framework's connection: what it ran is there for a page that shows it."""

    def __init__(self) -> None:
        self.queries: list[dict[str, str]] = []

    def execute(self, sql: str) -> int:
        self.queries.append({"sql": sql, "time": "0.001"})
        return len(sql)


_database = _Database()


@app.task
def lookup(number: int) -> int:
    """Runs five queries."""
    ids = ", ".join(str(number + step) for step in range(100))
    texts = [f"select * from orders where id in ({ids}, {step})" for step in range(5)]  # the line
    return sum(_database.execute(text) for text in texts)  # the line
