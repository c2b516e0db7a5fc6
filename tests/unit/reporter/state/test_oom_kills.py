"""Which deaths claim an OOM kill that was counted."""

from __future__ import annotations

import pytest

from otel_celery_memory.reporter.state.exits import CLAIM_WITHIN_NS, OomKills

S = 1_000_000_000


@pytest.mark.parametrize(
    ("gone_ns", "claimed"),
    [
        (4 * S - 1, False),
        (4 * S, True),
        (5 * S + CLAIM_WITHIN_NS, True),
        (5 * S + CLAIM_WITHIN_NS + 1, False),
    ],
)
def test_a_kill_is_claimed_only_by_a_process_that_died_about_then(
    gone_ns: int, claimed: bool
) -> None:
    oom = OomKills(3)
    oom.update(3, 4 * S)
    oom.update(4, 5 * S)
    assert (oom.claim(gone_ns), oom.claim(gone_ns)) == (claimed, False)


def test_kills_before_the_first_reading_are_counted_but_not_claimed() -> None:
    oom = OomKills(3)
    oom.update(5, 4 * S)
    assert (oom.since_start, oom.claim(4 * S)) == (2, False)


def test_without_a_count_there_are_no_kills_until_there_is_one() -> None:
    oom = OomKills(None)
    oom.update(None, S)
    assert (oom.since_start, oom.claim(S)) == (None, False)
    oom.update(7, 2 * S)
    oom.update(8, 3 * S)
    assert (oom.since_start, oom.claim(3 * S)) == (1, True)


def test_a_count_may_jump_or_fall() -> None:
    oom = OomKills(3)
    for count, now_s in ((3, 1), (2**62, 2), (0, 3)):
        oom.update(count, now_s * S)
    assert (oom.since_start, len(oom._unclaimed)) == (0, 64)
