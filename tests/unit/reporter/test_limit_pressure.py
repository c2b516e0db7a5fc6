"""When an episode of pressure begins and when to check again, from usages and times alone."""

from __future__ import annotations

import pytest

from otel_celery_memory.reporter.limits import (
    CHECK_S,
    RECYCLING_PAUSE_S,
    SHORTEST_CHECK_S,
    PressureEpisodes,
    Usage,
)

LIMIT = 1_000


def use(used: int, kind: str = "cgroup", pid: int | None = None) -> Usage:
    return Usage(kind, pid, used, LIMIT)


def test_an_episode_begins_once_at_ninety_per_cent() -> None:
    episodes = PressureEpisodes()
    found = [episodes.new_episodes([use(used)], 0.0) for used in (899, 900, 950, 1_000, 810)]
    assert found == [[], [use(900)], [], [], []]


def test_another_episode_begins_after_usage_fell_below_eighty_per_cent() -> None:
    episodes = PressureEpisodes()
    emitted = [
        bool(episodes.new_episodes([use(used)], 0.0)) for used in (900, 800, 900, 799, 899, 900)
    ]
    assert emitted == [True, False, False, False, False, True]


def test_an_episode_that_is_over_is_told_once_with_how_long_it_was() -> None:
    episodes = PressureEpisodes()
    relieved = []
    for now_s, used in enumerate((900, 850, 799, 700, 950)):
        episodes.new_episodes([use(used)], float(now_s))
        relieved.append(episodes.relieved)
    assert relieved == [[], [], [("cgroup", 2.0)], [], []]


def test_the_end_of_a_process_is_no_relief() -> None:
    episodes = PressureEpisodes()
    episodes.new_episodes([use(950, "rlimit_as", 1)], 0.0)
    episodes.new_episodes([], 1.0)
    assert episodes.relieved == []


def test_a_limit_that_is_removed_ends_its_episode() -> None:
    episodes = PressureEpisodes()
    assert [
        bool(episodes.new_episodes(usages, 0.0)) for usages in ([use(950)], [], [use(950)])
    ] == [
        True,
        False,
        True,
    ]


def test_nested_cgroups_share_an_episode_and_each_process_has_its_own() -> None:
    episodes = PressureEpisodes()
    usages = [
        use(910, "rlimit_as", 1),
        use(930, "rlimit_as", 2),
        use(950, "cgroup"),
        use(990, "cgroup"),
        use(100, "host"),
    ]
    assert episodes.new_episodes(usages, 0.0) == [usages[3], usages[1], usages[0]]
    # The outer cgroup is in the same episode.
    assert episodes.new_episodes(usages[2:3], 0.0) == []


def test_children_that_are_recycled_for_their_size_are_one_episode() -> None:
    episodes, kind = PressureEpisodes(), "max_memory_per_child"
    assert episodes.new_episodes([use(910, kind, 1), use(930, kind, 2)], 0.0) == [use(930, kind, 2)]
    assert episodes.new_episodes([use(910, kind, 1), use(930, kind, 3)], 0.0) == []


def test_children_that_are_recycled_for_their_size_are_one_episode_a_minute() -> None:
    episodes, kind = PressureEpisodes(), "max_memory_per_child"
    emitted = []
    for second in range(0, 3 * int(RECYCLING_PAUSE_S), 10):
        emitted += [second] if episodes.new_episodes([use(950, kind)], float(second)) else []
        episodes.new_episodes([use(100, kind)], second + 5.0)
    assert emitted == [0, 70, 140]


@pytest.mark.parametrize(
    ("used", "seconds"),
    [
        (0, CHECK_S),
        (699, CHECK_S),
        (850, 0.25),
        (910, 0.15),
        (1_000, SHORTEST_CHECK_S),
        (5_000, 0.05),
    ],
)
def test_the_nearer_the_limit_the_sooner_the_next_check(used: int, seconds: float) -> None:
    assert PressureEpisodes().next_check_s([use(used)], 0.0, 0.0) == pytest.approx(seconds)


def test_fast_growth_is_checked_four_times_before_the_limit() -> None:
    episodes = PressureEpisodes()
    episodes.next_check_s([use(100)], 0.0, 0.0)
    # 400 a second, 500 left: there in 1.25 s.
    assert episodes.next_check_s([use(500)], 1.0, 0.0) == pytest.approx(1.25 / 4)
    # It stands still: no hurry.
    assert episodes.next_check_s([use(500)], 2.0, 0.0) == CHECK_S


def test_of_nested_cgroups_the_growth_of_each_is_seen() -> None:
    episodes = PressureEpisodes()

    def both(inner: int, outer: int) -> list[Usage]:
        return [Usage("cgroup", None, inner, 1_000), Usage("cgroup", None, outer, 9_000)]

    episodes.next_check_s(both(100, 2_000), 0.0, 0.0)
    assert episodes.next_check_s(both(500, 2_000), 1.0, 0.0) == pytest.approx(1.25 / 4)


def test_checks_cost_at_most_a_fiftieth_of_the_time() -> None:
    episodes = PressureEpisodes()
    assert episodes.next_check_s([use(1_000)], 0.0, 0.01) == pytest.approx(0.5)
    assert episodes.next_check_s([use(1_000)], 0.0, 0.1) == pytest.approx(5.0)
    assert episodes.next_check_s([], 0.0, 1_000.0) == pytest.approx(25.0)


def test_a_limit_of_nothing_is_reached() -> None:
    assert Usage("cgroup", None, 5, 0).share == 1.0
    assert (
        PressureEpisodes().next_check_s([Usage("cgroup", None, 5, 0)], 0.0, 0.0) == SHORTEST_CHECK_S
    )


def test_usage_of_a_process_that_ended_is_removed() -> None:
    episodes = PressureEpisodes()
    for pid in range(100):
        episodes.next_check_s([use(1, "rlimit_as", pid)], float(pid), 0.0)
    assert list(episodes._before) == [("rlimit_as", 99, LIMIT)]
