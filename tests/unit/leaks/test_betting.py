from __future__ import annotations

import math
import random

import pytest

from otel_celery_memory.leaks.betting import (
    MOST_WEALTH,
    IncreaseBets,
    RankBets,
    RestartedBets,
    accused,
    mean_interval,
)


def test_the_rank_bets_win_nothing_on_average_whatever_the_order_of_exchangeable_values() -> None:
    """Each factor is at most 1 on average: over all ranks that the newest value may have."""
    for count in (1, 2, 3, 9, 40, 128):
        for share, part in RankBets._BETS:
            factors = [RankBets._factor(share, part, rank, count) for rank in range(1, count + 1)]
            assert sum(factors) / count == pytest.approx(1.0)


def test_an_increase_wins_as_much_as_an_equal_fall_loses() -> None:
    up, down = IncreaseBets(0.9), IncreaseBets(0.9)
    for bets in (up, down):
        bets.add(5.0)
        bets.add(-3.0)
    before = list(up.bets.wealth)
    up.add(1.0)
    down.add(-1.0)
    for was, more, less in zip(before, up.bets.wealth, down.bets.wealth, strict=True):
        assert more + less == pytest.approx(2 * (was + 1))


def test_what_rises_to_a_former_height_wins_little() -> None:
    bets, fresh = IncreaseBets(1.0), IncreaseBets(1.0)
    bets.add(100.0)
    bets.add(-100.0)
    bets.forget()
    for _ in range(100):
        bets.add(1.0)
        fresh.add(1.0)
    assert bets.bets.evidence < 300
    assert fresh.bets.evidence > 1e12


def test_ties_are_no_growth() -> None:
    ranks = RankBets(128)
    for _ in range(500):
        ranks.add(7.0)
    assert ranks.bets.evidence < 20


def test_ranks_are_of_a_bounded_number_of_values() -> None:
    ranks = RankBets(128)
    for number in range(1_000):
        ranks.add(float(number))
    assert len(ranks.values) <= 128
    assert ranks.bets.evidence == MOST_WEALTH


def test_bets_take_up_what_they_had() -> None:
    one, two = RestartedBets(2), RestartedBets(2)
    one.add([2.0, 0.5])
    two.restore(one.wealth)
    assert (two.wealth, two.evidence) == (one.wealth, one.evidence)


def test_bets_refuse_the_wealth_of_others() -> None:
    with pytest.raises(ValueError, match="as many bets"):
        RestartedBets(2).restore([1.0])


def test_more_names_ask_for_more_evidence() -> None:
    assert accused([50.0]) == 50.0
    assert accused([50.0] + [0.0] * 9) == math.inf
    assert accused([250.0] + [0.0] * 9) == 250.0
    assert accused([]) == math.inf


def test_several_that_are_guilty_need_less_evidence_each() -> None:
    assert accused([110.0, 100.0] + [0.0] * 8) == 100.0
    assert accused([100.0] + [0.0] * 9) == math.inf


def test_the_bounds_of_a_mean_hold_it_at_all_times_in_95_of_100_series() -> None:
    missed = 0
    for seed in range(200):
        rng = random.Random(seed)
        total = squares = 0.0
        for count in range(1, 300):
            value = rng.uniform(0.0, 2.0)
            total, squares = total + value, squares + value * value
            mean = total / count
            bounds = mean_interval(mean, math.sqrt(max(0, squares / count - mean * mean)), count)
            if count >= 20 and not bounds.low <= 1.0 <= bounds.high:
                missed += 1
                break
    assert missed <= 10
