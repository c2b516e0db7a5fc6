"""Tasks of several kinds that keep nothing: ten thousand runs."""

from __future__ import annotations

import json
import re
import time

from tests.truth.app import app
from tests.truth.case import Case

CASES = (
    Case("10,000 runs of healthy tasks", None, {"count": 60, "match": 25, "rest": 5, "fail": 10}),
)


@app.task
def count(number: int) -> int:
    """Counts."""
    return sum(len(str(n)) for n in range(number % 100, 300))


@app.task
def match(number: int) -> int:
    """Parses and searches."""
    text = json.dumps({"n": number, "rows": list(range(100))})
    return len(re.findall(r"\d+", text)) + len(json.loads(text))


@app.task
def rest(number: int) -> int:
    """Waits."""
    time.sleep(0.02)
    return number


@app.task
def fail(number: int) -> int:
    """Raises in some of its runs."""
    if number % 7 == 3:
        raise ValueError(number)
    return number
