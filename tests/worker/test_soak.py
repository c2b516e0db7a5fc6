"""A short soak: children and reporter killed, a Collector in trouble, a full pipe."""

from __future__ import annotations

import pytest

from soak.plan import Fault, Scale
from soak.run import run
from soak.table import lines


@pytest.mark.long
def test_under_every_fault_no_task_is_harmed_and_every_task_and_death_is_accounted_for() -> None:
    scale = Scale(tasks=3_000, kill_every=50, reporter_kills=1, troubles=4)
    result = run(scale, print)
    assert result.all_right, "\n".join(lines(result))
    assert result.harmed == []
    assert result.deaths.killed == result.injected.counts[Fault.KILL_CHILD.value] >= 20
    assert result.deaths.with_task > 0
    assert result.restarts == 1
    troubled, full, killed = result.balances
    # To the task: started = measured + lost in flight + ends that a full pipe did not take.
    assert (troubled.unaccounted, troubled.dropped_ends, troubled.dropped_others) == (0, 0, 0)
    assert full.unaccounted == 0
    assert full.dropped_ends > 0
    assert (killed.dropped_ends, killed.dropped_others) == (0, 0)
    assert -killed.twice_max <= killed.unaccounted <= 0
