"""Pages that a child shares with the main process and copies: RSS stays, unique memory grows."""

from __future__ import annotations

import re

import pytest

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import CONTROLLED, Start
from tests.worker.test_descendants import levels

MIB = 1 << 20
UNIQUE, COPIED = "celery.worker.memory.unique", "celery.worker.memory.copied"


def test_pages_that_are_copied_are_counted_and_said_though_rss_stays(
    start: Start, receiver: Receiver
) -> None:
    environ = {**CONTROLLED, "TEST_INHERITED_BYTES": str(256 * MIB)}
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        wait_until("its start is read", lambda: levels(receiver, COPIED), 20)
        (at_start,) = set(levels(receiver, UNIQUE))
        assert max(levels(receiver, COPIED)) < 16 * MIB
        before_bytes = worker.run("rss_bytes")
        sizes = worker.run("write_inherited")
        wait_until("it is told", lambda: levels(receiver, COPIED)[-1] > 16 * MIB, 40)
        text = wait_until("it is said", lambda: _line(worker.command("memory").get("ok", "")), 20)
        worker.stop()
    assert sizes["rss"] == pytest.approx(before_bytes, rel=0.05)
    assert levels(receiver, COPIED)[-1] == pytest.approx(256 * MIB, rel=0.05)
    assert levels(receiver, UNIQUE)[-1] == pytest.approx(sizes["unique"], rel=0.02)
    words = re.fullmatch(
        r"0: unique (.+) MiB of (.+) MiB, (.+) MiB at its start: (.+) MiB that it shared with main "
        "are copied",
        text,
    )
    assert words is not None
    unique, rss, unique_at_start, copied = (float(word) * MIB for word in words.groups())
    assert unique == pytest.approx(sizes["unique"], rel=0.02)
    assert rss == pytest.approx(sizes["rss"], rel=0.05)
    assert unique_at_start == pytest.approx(at_start, abs=8 * MIB)
    assert copied == pytest.approx(256 * MIB, rel=0.05)


def _line(text: str) -> str:
    return next((line for line in text.splitlines() if line.startswith("0: unique ")), "")
