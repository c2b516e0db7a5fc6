"""What the state knows of each process while it lives, and that all of it is bounded."""

from __future__ import annotations

from otel_celery_memory.ipc.records import (
    MAIN_SLOT,
    HeapSampled,
    PartFailed,
    ProcessDown,
    ProcessUp,
    TaskInFlight,
    TaskOverdue,
)
from otel_celery_memory.reporter.state.processes import ProcessState
from otel_celery_memory.reporter.state.worker_state import WorkerState
from tests.unit.examples import finished, started


def state_after(*records: object) -> WorkerState:
    """The state after these records."""
    state = WorkerState()
    for record in records:
        state.apply(record)  # type: ignore[arg-type]
    return state


def test_a_process_s_slot_and_memory_follow_its_records() -> None:
    heap = HeapSampled(1, 0, 5, 6, 7)
    goodbye = ProcessDown(1, 0, 4, 0, 1_500, None, "shutdown", "")
    state = state_after(
        ProcessUp(1, 0, 4, 900),
        started(rss_bytes=1_000),
        finished(start_bytes=1_000, delta_bytes=200, peak_bytes=8_000),
        heap,
        goodbye,
    )
    assert state.processes == {
        1: ProcessState(
            pid=1,
            slot=4,
            rss_bytes=1_500,
            rss_peak_bytes=9_000,
            run_peak_bytes=9_000,
            up_ns=0,
            started_bytes=900,
            tasks=1,
            last_finished="a",
            in_flight=[],
            last=started(rss_bytes=1_000),
            heap=heap,
            down=goodbye,
            exit_code=None,
            gone_ns=None,
        )
    }


def test_parts_that_failed_are_known_by_the_names_of_the_conventions_alone() -> None:
    forged = [PartFailed(1, 0, 4, f"forged {number}") for number in range(100)]
    state = state_after(PartFailed(1, 0, 4, "heap"), PartFailed(1, 0, 4, "heap"), *forged)
    assert state.processes == {1: ProcessState(1, 4, switched_off={"heap", "_other"})}


def test_a_late_record_of_a_failed_part_does_not_bring_back_an_ended_process() -> None:
    state = state_after(ProcessUp(1, 0, 4, 900))
    state.gone(1, 0)
    state.classify_ended(0, all_now=True)
    state.apply(PartFailed(1, 0, 4, "heap"))
    assert state.processes == {}


def test_an_rss_that_could_not_be_read_does_not_replace_one_that_could() -> None:
    state = state_after(
        ProcessUp(1, 0, 4, 900),
        ProcessUp(1, 0, 4, 0),
        ProcessDown(1, 0, 4, 0, 0, None, "shutdown", ""),
    )
    assert (state.processes[1].rss_bytes, state.processes[1].rss_peak_bytes) == (900, 900)


def test_a_peak_does_not_fall_with_rss() -> None:
    state = state_after(started(rss_bytes=5_000), started(rss_bytes=1_000))
    assert (state.processes[1].rss_bytes, state.processes[1].rss_peak_bytes) == (1_000, 5_000)


def test_tasks_in_flight_are_those_that_have_started_and_not_ended() -> None:
    outer, inner = started(task_id="outer"), started(task_id="inner", nested=1)
    state = state_after(outer, inner)
    assert state.processes[1].in_flight == [outer, inner]
    state.apply(finished(task_id="inner", nested=1))
    assert state.processes[1].in_flight == [outer]
    state.apply(finished(task_id="outer"))
    assert state.processes[1].in_flight == []


def test_a_task_whose_end_was_lost_is_gone_when_the_next_one_starts() -> None:
    following = started(task_id="b")
    state = state_after(ProcessUp(1, 0, 2, 900), started(task_id="a"), following)
    assert state.processes[1].in_flight == [following]


def test_tasks_of_the_main_process_s_threads_are_in_flight_side_by_side() -> None:
    first, second = started(task_id="a"), started(task_id="b")
    state = state_after(ProcessUp(1, 0, MAIN_SLOT, 900), first, second)
    assert state.processes[1].in_flight == [first, second]
    state.apply(finished(task_id="a", exclusive=0))
    assert state.processes[1].in_flight == [second]


def test_a_task_that_the_main_process_reports_is_in_flight_unless_newer_records_differ() -> None:
    reported = TaskInFlight(1, 7, "a", "app.task")
    in_flight = started(task_id="a", time_ns=7, rss_bytes=0)
    up = ProcessUp(1, 0, 2, 0)
    for records, expected in (
        ((up, reported), [in_flight]),
        ((up, reported, reported), [in_flight]),
        ((up, started(task_id="a"), reported), [started(task_id="a")]),
        ((up, finished(task_id="a"), reported), []),
        ((up, finished(task_id="a"), started(task_id="b"), reported), [started(task_id="b")]),
        ((up, reported, finished(task_id="a")), []),
        ((up, reported, started(task_id="b")), [started(task_id="b")]),
    ):
        assert state_after(*records).processes[1].in_flight == expected


def test_the_main_process_reports_a_task_for_each_thread() -> None:
    state = state_after(
        ProcessUp(1, 0, MAIN_SLOT, 900),
        TaskInFlight(1, 7, "a", "app.task"),
        TaskInFlight(1, 8, "b", "app.task"),
    )
    assert [task.task_id for task in state.processes[1].in_flight] == ["a", "b"]
    assert state.processes[1].rss_bytes == 900


def test_a_process_first_known_by_a_task_has_no_slot_until_a_record_names_it() -> None:
    state = state_after(started())
    assert state.processes[1].slot is None
    state.apply(ProcessUp(1, 0, 2, 0))
    assert state.processes[1].slot == 2


def test_processes_are_bounded_and_the_oldest_are_removed() -> None:
    state = state_after(*(ProcessUp(pid, 0, 0, 1) for pid in range(5_000)))
    assert list(state.processes) == list(range(5_000 - 4_096, 5_000))


def test_tasks_in_flight_are_bounded() -> None:
    state = state_after(*(started(task_id=str(n), nested=1) for n in range(1_000)))
    assert len(state.processes[1].in_flight) == 100


def test_overdue_tasks_are_bounded_and_the_oldest_are_removed() -> None:
    state = state_after(*(TaskOverdue(1, 0, str(n), "app.task") for n in range(2_000)))
    assert list(state._overdue) == [str(n) for n in range(2_000 - 1_024, 2_000)]


def test_an_unknown_process_does_not_end() -> None:
    state = WorkerState()
    state.gone(1, 5)
    assert state.classify_ended(5, all_now=True) == []


def test_the_peak_of_a_run_is_what_was_seen_since_its_start_above_it() -> None:
    state = state_after(ProcessUp(1, 0, 4, 9_000))
    process = state.processes[1]
    process.record_rss(50_000)
    state.apply(started(rss_bytes=10_000))
    assert process.run_peak_of(process.running) is None  # it was not looked at yet
    for rss_bytes in (12_000, 30_000, 11_000):
        process.record_rss(rss_bytes)
    assert process.run_peak_of(process.running) == 20_000
    assert process.rss_peak_bytes == 50_000
    process.record_rss(4_000)
    state.apply(started(task_id="b", rss_bytes=10_000))
    process.record_rss(9_000)
    assert process.run_peak_of(process.running) == 0
    assert process.run_peak_of(started(task_id="a", rss_bytes=10_000)) is None
    assert process.run_peak_of(None) is None


def test_a_run_that_its_process_ended_has_the_peak_that_it_measured() -> None:
    process = state_after(started(task_id="before", rss_bytes=1_000)).processes[1]
    process.record_rss(90_000)
    end = finished(
        task_id="b", start_bytes=2_000, delta_bytes=0, peak_bytes=8_000, state="TERMINATED"
    )
    process.finished(end)
    assert process.run_peak_of(process.last) == 8_000


def test_a_run_whose_size_at_its_start_is_not_known_has_no_peak() -> None:
    process = state_after(ProcessUp(1, 0, 4, 9_000), TaskInFlight(1, 5, "a", "t")).processes[1]
    process.record_rss(50_000)
    assert process.run_peak_of(process.running) is None


def collected(pid: int, *numbers: int) -> HeapSampled:
    """A sample in which the collector has done so much."""
    return HeapSampled(pid, 0, 5, 6, 7, *numbers)


def test_what_the_collector_did_is_summed_by_slot_over_the_processes_that_it_has_had() -> None:
    state = state_after(
        ProcessUp(1, 0, 4, 900),
        collected(1, 10, 2, 1, 30, 3, 0, 0, 0, 0),
        collected(1, 15, 3, 1, 35, 3, 0, 0, 0, 1),
    )
    assert state.collector == {4: (15, 3, 1, 35, 3, 0, 0, 0, 1)}
    state.gone(1, 1)
    state.classify_ended(1, all_now=True)
    state.apply(ProcessUp(2, 0, 4, 900))
    state.apply(collected(2, 1, 1, 1, 1, 1, 1, 0, 0, 0))
    assert state.collector == {4: (16, 4, 2, 36, 4, 1, 0, 0, 1)}


def test_what_an_earlier_reporter_counted_of_the_collector_is_not_counted_again() -> None:
    # Without its size: the main process says that it is still there.
    state = state_after(
        ProcessUp(1, 0, 4, 0),
        collected(1, 10, 2, 1, 30, 3, 0, 0, 0, 0),
        collected(1, 12, 2, 1, 30, 3, 0, 0, 0, 0),
    )
    assert state.collector == {4: (2, *[0] * 8)}


def test_a_collector_that_counts_less_or_otherwise_takes_nothing_away() -> None:
    state = state_after(
        ProcessUp(1, 0, 4, 900),
        collected(1, 2**63 - 1, *[5] * 8),
        collected(1, 3, *[5] * 8),
        collected(1, 2**63 - 1, *[5] * 8),
        HeapSampled(1, 0, 5, 6, 7),
    )
    assert state.collector == {4: (2**63 - 1, *[5] * 8)}
