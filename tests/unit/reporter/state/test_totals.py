"""Sums over the runs of each task."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from otel_celery_memory.reporter.state.heap_levels import HeapLevels
from otel_celery_memory.reporter.state.totals import Kept, TaskTotals
from tests.unit.examples import finished, left_behind

S = 1_000_000_000
KIB = 1 << 10


def sampled(totals: TaskTotals, *sizes: int | None, task: str = "a", at_s: int = 0) -> TaskTotals:
    for size in sizes:
        totals.left_behind(task, left_behind(size, blocks=2, time_ns=at_s * S))
    return totals


def test_runs_and_what_they_held_when_traced_are_added_up() -> None:
    totals = TaskTotals()
    totals.finished("a", finished())
    totals.finished("a", finished(traced_delta_bytes=300))
    totals.finished("a", finished(traced_delta_bytes=-100))
    [(name, total, _)] = totals.largest(5)
    assert (name, total.runs, total.traced_runs, total.traced_bytes) == ("a", 3, 2, 200)


def kept(totals: TaskTotals, task: str = "a") -> float | None:
    found = totals.kept(task)
    return None if found is None else found.bytes_per_run


def test_a_task_keeps_the_mean_of_its_samples_once_there_are_three() -> None:
    totals = sampled(TaskTotals(), 1_400, 900)
    assert kept(totals) is None
    assert kept(sampled(totals, 1_600)) == 1_300
    assert kept(totals, "unknown") is None


def test_a_task_keeps_nothing_if_its_samples_do_not_say_that_it_does() -> None:
    assert kept(sampled(TaskTotals(), 60, -80, 70)) == 0
    assert kept(sampled(TaskTotals(), *[0, 600] * 20)) == pytest.approx(300, rel=0.05)
    assert kept(sampled(TaskTotals(), *[600, -590] * 20)) == 0


def test_a_block_more_or_less_is_nothing_in_three_samples_and_something_in_ten() -> None:
    totals = sampled(TaskTotals(), 100, 100, 200)
    assert kept(totals) == 0
    assert kept(sampled(totals, *[100] * 7)) == pytest.approx(100, rel=0.2)


def test_a_block_in_most_of_ten_samples_is_nothing_and_in_each_of_them_is_a_leak() -> None:
    assert kept(sampled(TaskTotals(), *[100] * 11, 0)) == 0
    assert kept(sampled(TaskTotals(), *[100] * 12)) == pytest.approx(100)
    assert kept(sampled(TaskTotals(), *[100] * 39, 0)) == pytest.approx(100, rel=0.1)


def test_that_nothing_is_kept_is_known_of_many_samples_that_agree_and_of_no_others() -> None:
    def is_nothing(*sizes: int) -> bool:
        found = sampled(TaskTotals(), *sizes).kept("a")
        return found is not None and found.is_nothing

    assert is_nothing(*[0] * 10)
    assert not is_nothing(*[0] * 9)
    assert not is_nothing(*[600, -590] * 20)
    assert not is_nothing(*[200] * 10)


def test_samples_before_a_run_of_another_task_count_only_where_there_are_no_others() -> None:
    totals = TaskTotals()
    before_a_large_message = left_behind(200_000, alike=0)
    assert all(totals.left_behind("a", before_a_large_message) for _ in range(3))
    assert kept(totals) == 200_000
    sampled(totals, 0, 0, 0)
    assert not totals.left_behind("a", before_a_large_message)
    assert kept(totals) == 0


def test_a_task_that_never_follows_itself_keeps_nothing_if_it_is_less_than_messages_differ_by() -> (
    None
):
    totals = TaskTotals()
    for size in (900, 1_000, 950):
        totals.left_behind("a", left_behind(size, alike=0))
        totals.left_behind("b", left_behind(2 * size, alike=0))
        # A buffer of the client of the broker, which is there before each run of another task.
        totals.left_behind("c", left_behind(1_140, alike=0))
    assert (kept(totals), kept(totals, "b"), kept(totals, "c")) == (0, 1_900, 0)


def test_what_two_messages_differ_by_adds_up_to_nothing_however_many_samples_there_are() -> None:
    totals = TaskTotals()
    told = [
        totals.left_behind("a", left_behind(size, alike=0, time_ns=at * S))
        for at, size in enumerate([400, 390, 410] * 100)
    ]
    assert {record.heap_bytes for record in told[2:] if record} == {0}


def test_what_a_first_run_left_is_not_in_the_mean() -> None:
    totals = sampled(TaskTotals(), *[110] * 10)
    totals.left_behind("a", left_behind(40_000_000, warm_up=1))
    assert kept(totals) == 110


def test_what_fills_up_in_a_workers_first_seconds_is_warm_up() -> None:
    totals = TaskTotals(warm_up_s=10)
    totals.finished("fills", finished())
    told = [
        totals.left_behind("fills", left_behind(20_000, time_ns=second * S)) for second in range(10)
    ]
    assert {record.warm_up for record in told if record is not None} == {1}
    assert totals.kept("fills") == Kept(None, 0.0, 2**63, is_nothing=True)
    for second in range(10, 20):
        sampled(totals, 0, task="fills", at_s=second)
        sampled(totals, 20_000, task="leaks", at_s=second)
    assert (kept(totals, "fills"), kept(totals, "leaks")) == (0, 20_000)


def test_of_ten_samples_the_largest_is_no_leak_as_it_happened_once() -> None:
    assert kept(sampled(TaskTotals(), *[0] * 9, 8_000_000)) == 0
    assert kept(sampled(TaskTotals(), *[100] * 9, -8_000_000)) == 100


def test_a_cache_that_has_filled_up_is_forgotten_within_two_intervals_of_samples() -> None:
    totals = sampled(TaskTotals(), *[500_000] * 10)
    for at_s in (40, 80):
        sampled(totals, *[0] * 10, at_s=at_s)
    assert kept(totals) == 0


def test_a_rare_task_is_still_known_hours_later_and_by_its_newest_runs_then() -> None:
    totals = TaskTotals()
    for hour in range(3):
        sampled(totals, 1_100, at_s=hour * 3_600)
    assert kept(totals) == 1_100


def test_without_malloc_s_counter_blocks_are_known_alone() -> None:
    totals = sampled(TaskTotals(), None, None, None)
    [(_, total, _)] = totals.largest(1)
    assert kept(totals) is None
    assert total.left_behind.per_run("blocks") == 2


def test_those_whose_runs_left_most_in_all_come_first_and_equals_by_name() -> None:
    totals = TaskTotals()
    for name, size in {"d": 1_500, "c": -1_900, "b": 17_000, "a": 1_500}.items():
        totals.finished(name, finished())
        sampled(totals, size, size, size, task=name)
    for _ in range(20):
        totals.finished("a", finished())
    assert [name for name, *_ in totals.largest(9)] == ["a", "b", "d", "c"]


def test_cleared_totals_are_empty() -> None:
    totals = TaskTotals()
    totals.finished("a", finished())
    totals.clear()
    assert totals.largest(5) == []


class Worker:
    """Children in which a task runs twice a second, with their heaps' levels after each run."""

    def __init__(self) -> None:
        self.totals = TaskTotals()
        self.at_s = 0.0

    def run(
        self,
        seconds: int,
        *levels_kib: Callable[[float], float],
        task: str = "a",
        left: int | None = None,
        alike: int = 1,
    ) -> Worker:
        """It runs in a child for each of the levels, which are given the time; samples left so."""
        until_s = self.at_s + seconds
        while self.at_s < until_s:
            time_ns = int(self.at_s * S)
            for pid, level_kib in enumerate(levels_kib):
                self.totals.finished(task, finished(pid, task=task, time_ns=time_ns))
                level_bytes = int(level_kib(self.at_s) * KIB)
                self.totals.left_behind(
                    task,
                    left_behind(
                        left,
                        pid=pid,
                        time_ns=time_ns,
                        level_bytes=level_bytes,
                        warm_up=int(left is None),
                        alike=alike,
                    ),
                )
            self.at_s += 0.5
        return self

    def kept(self, task: str = "a") -> Kept:
        """What is known of the task."""
        found = self.totals.kept(task)
        assert found is not None
        return found


def test_a_task_keeps_no_more_than_the_heaps_have_grown_by() -> None:
    worker = Worker().run(20, lambda s: 900 + 20 * s, left=10 * KIB)
    assert worker.kept().bytes_per_run == 10 * KIB
    worker.run(60, lambda s: 1_300, left=10 * KIB)
    assert worker.kept().bytes_per_run == 0
    assert worker.kept().contradicts(10 * KIB)
    assert not worker.kept().is_nothing  # it may go on
    worker.run(90, lambda s: 1_300, left=10 * KIB)
    assert worker.kept().is_nothing


def test_what_a_full_collection_frees_hides_no_growth() -> None:
    worker = Worker().run(120, lambda s: 900 + 20 * s - 600 * (s // 30), left=10 * KIB)
    assert worker.kept().bytes_per_run == pytest.approx(10 * KIB, rel=0.2)


def test_a_task_without_samples_keeps_no_more_than_that_either() -> None:
    worker = Worker().run(60, lambda s: 900 + 20 * s)
    assert worker.kept().bytes_per_run is None
    assert worker.kept().most_bytes == pytest.approx(10 * KIB, rel=0.2)
    worker.run(60, lambda s: 2_100)
    assert worker.kept().bytes_per_run == 0


def test_growth_that_samples_do_not_explain_may_be_any_task_s() -> None:
    worker = Worker().run(120, lambda s: 900 + 20 * s, left=0)
    assert worker.kept().most_bytes == pytest.approx(10 * KIB, rel=0.2)
    assert not worker.kept().is_nothing
    still = Worker().run(60, lambda s: 900, left=0)
    assert still.kept().is_nothing


def test_of_a_task_that_ran_seldom_lately_the_samples_speak_alone() -> None:
    worker = Worker().run(20, lambda s: 900 + 20 * s, left=10 * KIB)
    worker.run(300, lambda s: 1_300, task="b", left=0)
    assert worker.kept().bytes_per_run == 10 * KIB


def test_growth_in_children_whose_levels_are_not_known_is_not_bounded() -> None:
    worker = Worker().run(40, lambda s: 900, left=10 * KIB)
    for _ in range(100):
        worker.totals.finished("a", finished(7, time_ns=int(worker.at_s * S)))
    worker.run(6, lambda s: 900, left=10 * KIB)
    assert worker.kept().bytes_per_run == 10 * KIB


def test_of_processes_that_are_gone_nothing_is_kept() -> None:
    levels = HeapLevels()
    for pid in range(2_000):
        levels.ran(pid, pid * S // 10, "a")
    assert levels.processes() <= 512
    levels.ran(3_000, 1_000 * S, "a")
    assert levels.processes() == 1


def test_the_growth_of_all_children_is_added_up() -> None:
    worker = Worker().run(60, lambda s: 900, lambda s: 900 + 40 * s, left=20 * KIB)
    assert worker.kept().bytes_per_run == pytest.approx(10 * KIB, rel=0.2)


def test_code_of_no_task_keeps_no_more_than_the_task_that_keeps_least() -> None:
    worker = Worker()
    for _ in range(30):
        worker.run(1, lambda s: 900 + 20 * s, left=20 * KIB)
        worker.run(1, lambda s: 900 + 20 * s, task="b", left=0)
    assert worker.kept("").is_nothing
    worker.run(60, lambda s: 900 + 20 * s, left=10 * KIB)
    assert worker.kept("").bytes_per_run == 10 * KIB  # b does not run any more


def test_a_burst_that_leaks_is_not_bounded_by_the_level_before_it() -> None:
    worker = Worker().run(60, lambda s: 900, lambda s: 900, task="b", left=0)
    for number in range(60):
        worker.at_s += 0.05
        time_ns = int(worker.at_s * S)
        worker.totals.finished("a", finished(0, task="a", time_ns=time_ns))
        sample = left_behind(
            10 * KIB, pid=0, time_ns=time_ns, level_bytes=(910 + 10 * number) * KIB
        )
        worker.totals.left_behind("a", sample)
    worker.at_s += 60
    worker.totals.finished("b", finished(1, task="b", time_ns=int(worker.at_s * S)))
    assert worker.kept("a").bytes_per_run == 10 * KIB
    assert not worker.kept("a").is_nothing


def test_warm_up_of_new_children_is_not_growth_that_samples_must_explain() -> None:
    worker = Worker().run(60, lambda s: 900, left=0)
    for pid in range(10, 20):
        for second in range(5):
            worker.at_s += 0.5
            time_ns = int(worker.at_s * S)
            level_bytes = (900 + 100 * second) * KIB
            worker.totals.finished("a", finished(pid, time_ns=time_ns))
            worker.totals.left_behind(
                "a", left_behind(0, pid=pid, time_ns=time_ns, level_bytes=level_bytes)
            )
    worker.run(5, lambda s: 900, left=0)
    assert worker.kept().is_nothing


@pytest.mark.parametrize("time_ns", [0, 2**62])
def test_a_clock_that_jumps_and_a_damaged_time_do_no_lasting_harm(time_ns: int) -> None:
    worker = Worker()
    worker.at_s = 10_000.0
    worker.run(150, lambda s: 900, left=10 * KIB)
    assert worker.kept().is_nothing
    worker.totals.finished("a", finished(0, time_ns=time_ns))
    worker.run(60, lambda s: 900, left=10 * KIB)
    assert worker.kept().bytes_per_run == 0


def test_where_growth_is_not_explained_it_is_that_of_the_task_whose_samples_likely_show_it() -> (
    None
):
    def worker(size_bytes: int, every: int) -> Worker:
        """A heap grows by 10 KiB in each run of a, and one sample in so many shows something."""
        made = Worker()
        for number in range(240):
            left = size_bytes if number % every == every - 1 else 0
            made.run(1, lambda s: 900 + 20 * s, left=left)
        return made

    assert worker(300 * KIB, 40).kept().bytes_per_run == pytest.approx(300 * KIB / 40, rel=0.2)
    assert worker(300 * KIB, 200).kept().bytes_per_run == 0  # it was one sample
    assert worker(2 * KIB, 40).kept().bytes_per_run == 0  # it does not explain it


def test_growth_that_samples_beside_other_tasks_are_likely_to_explain_is_not_theirs() -> None:
    def worker(left: int) -> Worker:
        """A heap grows by 1.2 KiB in each run of b, which always runs between two runs of a."""
        made = Worker()
        for _ in range(120):
            made.run(1, lambda s: 900 + 1.2 * s, left=0)
            made.run(1, lambda s: 900 + 1.2 * s, task="b", left=left, alike=0)
        return made

    known = worker(1_200)
    assert known.kept("b").bytes_per_run == pytest.approx(1_200, rel=0.05)
    assert known.kept("a").is_nothing
    # So much may be the difference between two messages: nobody is said to do it, and nobody not.
    unknown = worker(900)
    assert (unknown.kept("b").bytes_per_run, unknown.kept("a").bytes_per_run) == (0, 0)
    assert not unknown.kept("a").is_nothing


def test_where_messages_hide_what_a_run_keeps_what_windows_found_is_told_within_the_counters() -> (
    None
):
    hidden = Kept(0.0, 2_000.0, 20, is_nothing=False)
    assert hidden.with_found(1_100, 1_100).bytes_per_run == 1_100
    assert hidden.with_found(4_000, 800)[:2] == (4_000, 4_000)
    for kept, counted in (
        (hidden, 2_100),
        (hidden, 0),
        (hidden._replace(is_nothing=True), 1_100),
        (hidden._replace(bytes_per_run=500.0), 1_100),
        (hidden._replace(bytes_per_run=None), 1_100),
    ):
        assert kept.with_found(1_100, counted) == kept
