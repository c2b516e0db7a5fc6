"""The first run in each child imports much, and children are recycled."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

_RECYCLED = ("--concurrency=2", "--max-tasks-per-child=150")
CASES = (
    Case("late imports, recycled", None, {"tabulate": 5}, worker=_RECYCLED, fills=("tabulate",)),
    Case(
        "a late import of pandas",
        None,
        {"frame": 3},
        worker=_RECYCLED,
        needs=("pandas",),
        fills=("frame",),
    ),
)


@app.task
def tabulate(number: int) -> int:
    """Needs some dozens of modules that nobody else does."""
    import doctest
    import imaplib
    import mailbox
    import pydoc_data.topics
    import unittest.mock
    import wsgiref.simple_server
    import xml.dom.minidom
    import xmlrpc.server

    used = (doctest, imaplib, mailbox, pydoc_data, unittest, wsgiref, xml, xmlrpc)
    return len(used) + number


@app.task
def frame(number: int) -> int:
    """Needs pandas."""
    import pandas

    return len(pandas.DataFrame({"a": [number]}))
