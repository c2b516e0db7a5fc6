"""Which runs of a process are traced within the budget, and what is sent of them."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator

import pytest

from otel_celery_memory.ipc.commands import Balance
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import SHARED_NAME
from otel_celery_memory.probes import tracemalloc_session
from otel_celery_memory.worker.measuring.time_limits import TimeLimits
from otel_celery_memory.worker.tracing import traced_window
from otel_celery_memory.worker.tracing.depth import (
    DEEP_FRAMES,
    OVERLAPPING_FRAMES,
    WINDOW_FRAMES,
)
from tests.unit.worker.tracing.process_tracing import BLOCK, Tracing


@pytest.fixture
def tracing() -> Iterator[Tracing]:
    made = Tracing()
    yield made
    made.down()
    assert not tracemalloc.is_tracing()


def test_what_each_run_of_a_window_leaves_behind_is_sent_and_no_thread_is_started(
    tracing: Tracing,
) -> None:
    threads = threading.active_count()
    tracing.until_traced()
    assert threading.active_count() == threads
    for _ in range(60):
        tracing.run(blocks=2)
    runs = tracing.traced_runs()["a"]
    ((kind, task, _, _, blocks),) = tracing.windows()
    assert (kind, task) == ("COMPLETE", "a")
    assert runs > 20
    assert blocks == pytest.approx(2 * runs, rel=0.3)


def test_what_a_run_replaces_or_shows_once_has_not_grown(tracing: Tracing) -> None:
    def replace() -> None:
        tracing.count = 0
        tracing.run(blocks=50)

    tracing.until_traced()
    for _ in range(60):
        replace()
    ((_, _, _, _, blocks),) = tracing.windows()
    assert blocks == 0


@pytest.mark.parametrize(("state", "sent"), [("SUCCESS", True), ("FAILURE", False)])
def test_a_window_whose_last_run_alone_raised_says_nothing_of_what_is_left_behind(
    tracing: Tracing, state: str, sent: bool
) -> None:
    tracing.until_traced()
    for _ in range(10):
        tracing.run()
    assert tracing.start()
    tracing.leak(50)
    tracing.move(0.002)
    tracing.end(state=state)
    tracing.tracing.down()
    assert bool(tracing.windows()) is sent


def test_of_a_task_that_always_raises_windows_say_what_it_leaves_behind(tracing: Tracing) -> None:
    tracing.until_traced()
    for _ in range(60):
        tracing.run(state="FAILURE")
    ((_, task, _, _, blocks),) = tracing.windows()
    assert task == "a"
    assert blocks > 0


def test_a_full_container_that_drops_what_was_there_before_the_window_has_not_grown(
    tracing: Tracing, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After two thousand tests malloc's level takes long to read.
    monkeypatch.setattr(traced_window, "_LEVEL_COST_MAX_S", 1.0)

    def evict() -> bool:
        tracing.count %= 5_000
        return tracing.run(blocks=50)

    tracing.leak(5_000)
    while not evict():
        pass
    for _ in range(60):
        evict()
    ((_, _, _, _, blocks),) = tracing.windows()
    assert blocks < 300  # of 1,600 that seem to have grown


def test_in_a_mix_each_task_answers_for_what_it_has_left_behind(tracing: Tracing) -> None:
    tracing.until_traced("a")
    for _ in range(60):
        tracing.run("b", blocks=0)
        tracing.run("a", blocks=3)
    found = [(window[1], window[4] > 0) for window in tracing.windows()]
    assert ("a", True) in found
    assert ("b", True) not in found


@pytest.mark.parametrize("others", [19, 60])
def test_a_window_that_began_with_a_rare_task_waits_for_more_runs_of_it(
    tracing: Tracing, others: int
) -> None:
    found: list[int] = []
    for _ in range(40):
        for task in ("a", "a", *["b"] * others):
            tracing.run(task, blocks=int(task == "a"))
        found += [window[4] for window in tracing.windows() if window[1] == "a"]
    assert max(found) >= 2, found


def test_a_heavy_task_ends_the_window_and_the_others_have_theirs(tracing: Tracing) -> None:
    tracing.run("heavy", cpu_s=5.0)
    tracing.run("heavy", cpu_s=5.0)
    tracing.until_traced("a")
    for _ in range(5):
        tracing.run("a")
    assert not tracing.run("heavy", cpu_s=5.0)
    assert [window[1] for window in tracing.windows()] == ["a"]


def test_each_name_has_its_turn(tracing: Tracing) -> None:
    seen: set[str] = set()
    for _ in range(20):
        seen |= {window[1] for window in tracing.until_window("a", "b", "c")}
        if seen >= {"a", "b", "c"}:
            return
    raise AssertionError(seen)


def test_what_tracing_cost_is_kept_where_a_successor_finds_it(tracing: Tracing) -> None:
    tracing.until_window("a")
    balance = tracing.page.load(0)
    assert balance.runs > 20
    assert 0 < balance.spent_s < balance.task_s


def test_a_successor_goes_on_where_the_one_before_ended() -> None:
    page = ControlPage()
    page.save(0, Balance(100.0, 5.0, 100.0, 5.0, 999.0, 1_000.0, 0.01))
    successor = Tracing(page)
    assert not any(successor.run() for _ in range(300))
    successor.down()
    assert page.load(0).task_s == pytest.approx(100.3)


def test_where_children_live_for_a_run_their_first_ones_are_traced() -> None:
    page = ControlPage()
    page.save(0, Balance(100.0, 0.0, 100.0, 0.0, 999.0, 1.0, 0.001))
    child = Tracing(page)
    assert child.run(blocks=4)
    child.down()
    assert child.windows() == [("FIRST_RUN", "a", 0, 0, 4)]


def test_a_run_that_could_reach_its_limit_is_not_traced(tracing: Tracing) -> None:
    tracing.limits = TimeLimits(0.4)
    assert not any(tracing.run() for _ in range(200))


def test_a_user_s_tracing_is_left_alone_and_none_of_ours_begins(tracing: Tracing) -> None:
    tracemalloc.start(3)
    assert not any(tracing.run() for _ in range(100))
    assert tracemalloc.get_traceback_limit() == 3
    tracemalloc.stop()
    tracing.until_traced()


def test_a_task_that_asks_tracemalloc_sees_nothing_of_ours_and_is_never_traced_again(
    tracing: Tracing,
) -> None:
    tracing.until_traced()
    tracing.start()
    assert not tracemalloc.is_tracing()
    tracemalloc.start(2)
    kept = bytes(BLOCK)
    snapshot = tracemalloc.take_snapshot()
    assert BLOCK < sum(trace.size for trace in snapshot.traces) < 200 * len(kept)
    tracemalloc.stop()
    tracing.end()
    assert not any(tracing.run() for _ in range(2_000))
    successor = Tracing(tracing.page)
    assert not any(successor.run() for _ in range(2_000))
    assert successor.until_traced("b") > 0
    successor.down()


def test_where_stopping_could_crash_the_process_nothing_is_traced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracemalloc_session, "_STOP_IS_FIXED", False)
    tracing = Tracing(foreign_threads=True)
    assert not any(tracing.run() for _ in range(100))
    tracing.down()


def test_the_guard_stops_a_run_that_costs_more_than_it_may(tracing: Tracing) -> None:
    tracing.until_traced()
    tracing.start()
    tracing.move(0.1)
    tracing.tracing._alarmed()
    assert tracing.traces
    tracing.move(0.2)
    tracing.tracing._alarmed()
    assert not tracing.traces
    tracing.end()
    assert [window[3] for window in tracing.windows()] == [1]


def test_a_window_that_no_run_follows_is_closed_and_sent_by_the_guard(tracing: Tracing) -> None:
    tracing.until_traced()
    for _ in range(8):
        tracing.run()
    tracing.move(0.0, wait_s=100.0)
    tracing.tracing._alarmed()
    assert tracing.traces
    tracing.move(0.0, wait_s=1_000.0)
    tracing.tracing._alarmed()
    assert not tracing.traces
    assert tracing.windows()[0][0] == "COMPLETE"


def test_a_window_in_a_process_whose_other_threads_work_is_closed(tracing: Tracing) -> None:
    tracing.until_traced()
    tracing.move(0.5)
    tracing.tracing._alarmed()
    assert not tracing.traces


def test_without_a_budget_nothing_is_traced_but_captures(tracing: Tracing) -> None:
    tracing.tracing.budgeted = False
    assert not any(tracing.run() for _ in range(100))
    assert tracing.page.load(0) == Balance()


def test_deeper_stacks_are_given_up_where_they_leave_room_for_too_few_runs(
    tracing: Tracing,
) -> None:
    sampled = tracing.tracing
    sampled._depth.too_shallow()
    tracing.until_traced()
    assert sampled._depth.frames == DEEP_FRAMES
    frames = []
    for _ in range(2):  # one run alone may be slow for another reason
        while not tracing.start():
            tracing.move(0.001)
            tracing.end()
        tracing.move(0.4)
        tracing.end()
        frames.append(sampled._depth.frames)
    assert frames == [DEEP_FRAMES, WINDOW_FRAMES]
    assert not sampled._sampler.is_too_slow("a", tracing.clock())


def test_a_successor_goes_on_with_as_many_frames_as_its_predecessor_needed(
    tracing: Tracing,
) -> None:
    tracing.tracing._depth.too_shallow()
    tracing.tracing.save_balance()
    assert tracing.page.load(0).frames == DEEP_FRAMES
    assert Tracing(page=tracing.page).tracing._depth.frames == DEEP_FRAMES


def until_overlapping_runs_are_traced(tracing: Tracing) -> float:
    """How long that took, in which two runs are in flight all the time."""
    began_s = tracing.clock()
    tracing.start(task_id="0", alone=False)
    for number in range(1, 100_000):
        tracing.move(0.002)
        if tracing.start(task_id=str(number), alone=False):
            break
        tracing.end(task_id=str(number - 1), exclusive=False)
    return tracing.clock() - began_s


def test_runs_that_overlap_are_traced_once_the_worker_has_warmed_up() -> None:
    """Their first window costs what the process may spend, and connections are made then."""
    for warm_up_s in (0.0, 60.0):
        tracing = Tracing(warm_up_s=warm_up_s)
        passed_s = until_overlapping_runs_are_traced(tracing)
        assert tracing.traces
        assert warm_up_s <= passed_s < warm_up_s + 5
        tracing.down()


def test_a_mean_run_that_overlaps_has_all_that_the_process_did(tracing: Tracing) -> None:
    """Two milliseconds from the end of one to the beginning of the next, and one beside it."""
    tracing.start(task_id="0", alone=False)
    for number in range(1, 15):
        tracing.move(0.002)
        tracing.start(task_id=str(number), alone=False)
        tracing.move(0.001)
        tracing.end(task_id=str(number - 1), exclusive=False)
    costs = tracing.tracing._sampler._known.of(SHARED_NAME, tracing.clock())
    assert costs.cpu_s == pytest.approx(0.003)


def test_few_frames_are_kept_of_runs_that_overlap() -> None:
    tracing = Tracing()
    until_overlapping_runs_are_traced(tracing)
    assert tracemalloc_session._PYTHON["get_traceback_limit"]() == OVERLAPPING_FRAMES
    tracing.down()


def test_a_slow_run_forbids_no_deeper_stacks_where_there_were_none(tracing: Tracing) -> None:
    for _ in range(2):
        while not tracing.start():
            tracing.move(0.001)
            tracing.end()
        tracing.move(0.4)
        tracing.end()
    sampled = tracing.tracing
    assert sampled._sampler.is_too_slow("a", tracing.clock())
    sampled._depth.too_shallow()
    assert sampled._depth.frames == DEEP_FRAMES


def test_a_run_that_began_before_the_window_it_ends_in_is_known_as_a_traced_one(
    tracing: Tracing,
) -> None:
    for number in range(20_000):
        tracing.start(task_id=f"a{number}", alone=False)
        tracing.move(0.002)
        is_traced = tracing.start("b", f"b{number}", alone=False)
        if is_traced and not tracing.tracing._in_window.keys() - {f"b{number}"}:
            break
        tracing.end("b", f"b{number}", exclusive=False)
        tracing.end(task_id=f"a{number}", exclusive=False)
    costs = tracing.tracing._sampler._known.of(SHARED_NAME, tracing.clock())
    runs, traced, cpu_s = costs.runs, costs.traced, costs.cpu_s
    tracing.move(0.006)
    tracing.end(task_id=f"a{number}", exclusive=False)
    assert (costs.runs, costs.traced, costs.cpu_s) == (runs, traced + 1, cpu_s)


def test_runs_that_overlap_are_traced_though_no_name_was_ever_seen_alone(tracing: Tracing) -> None:
    for number in range(20_000):
        mine, other = f"a{number}", f"b{number}"
        traced = [tracing.start(task_id=mine, alone=False)]
        traced.append(tracing.start("b", other, alone=False))
        tracing.move(0.002)
        tracing.end("b", other, exclusive=False)
        tracing.end(task_id=mine, exclusive=False)
        if any(traced):
            break
    assert any(traced)
