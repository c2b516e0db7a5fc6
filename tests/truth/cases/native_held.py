"""A database in memory is opened in each run and kept: its pages are C's, its holder Python's."""

from __future__ import annotations

import sqlite3

from tests.truth.app import app
from tests.truth.case import Case
from tests.truth.findings import HeldBy

_databases: dict[int, sqlite3.Connection] = {}
CASES = (
    Case(
        "native memory held by objects",
        "index",
        {"index": 3},
        census="index",
        shows=(HeldBy("sqlite3.Connection", "_databases"),),
        kinds=("native",),
        holder=("_databases",),
    ),
)


@app.task
def index(number: int) -> None:
    """Fills a database of about a mebibyte, and keeps it."""
    _databases[number] = sqlite3.connect(":memory:")  # the line
    _databases[number].execute("create table pages (body)")
    _databases[number].execute("insert into pages values (zeroblob(1000000))")
