"""``tracemalloc`` run for us: what is ours is started and stopped, what is not is left alone."""

from __future__ import annotations

import sys
import threading
import tracemalloc
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from otel_celery_memory.probes import tracemalloc_session
from otel_celery_memory.probes.tracemalloc_session import TracemallocSession, _fixed

MIB = 1 << 20
PYTHON = tracemalloc_session._PYTHON
PYTHON_S: dict[str, Any] = {"start": tracemalloc.start}
"""In a dict: a module that has the function itself keeps its process from being traced."""


@pytest.fixture
def tracer() -> Iterator[TracemallocSession]:
    made = TracemallocSession(7)
    # This module has a name of its own for Python's function.
    made._modules_seen.update(sys.modules)
    yield made
    made.stop()
    assert tracemalloc.start is PYTHON_S["start"]


def test_it_traces_from_start_to_stop_with_its_frames(tracer: TracemallocSession) -> None:
    assert (tracer.ours, tracer.session) == (False, 0)
    assert tracer.start()
    assert (tracer.ours, PYTHON["get_traceback_limit"]()) == (True, 7)
    tracer.stop()
    assert (tracer.ours, tracer.session, tracemalloc.is_tracing()) == (False, 0, False)


def test_a_tracing_that_somebody_else_started_is_left_as_it_is(tracer: TracemallocSession) -> None:
    tracemalloc.start(3)
    assert not tracer.start()
    assert (tracer.ours, tracer.session, tracer.user_traces) == (False, 0, True)
    tracer.stop()
    assert tracemalloc.get_traceback_limit() == 3
    tracemalloc.stop()


def test_it_is_started_once(tracer: TracemallocSession) -> None:
    assert tracer.start()
    assert not tracer.start()
    tracer.stop()
    assert not tracemalloc.is_tracing()


def test_every_tracing_of_ours_is_another_session(tracer: TracemallocSession) -> None:
    sessions = []
    for _ in range(2):
        tracer.start()
        sessions.append(tracer.session)
        tracer.stop()
    assert len({*sessions, 0}) == 3


@pytest.mark.parametrize("name", sorted(tracemalloc_session._PYTHON))
def test_whoever_asks_anything_gets_what_he_would_without_us(
    tracer: TracemallocSession, name: str
) -> None:
    arguments = {"start": (3,), "get_object_traceback": (object(),)}.get(name, ())

    def answer() -> object:
        try:
            return getattr(tracemalloc, name)(*arguments)
        except RuntimeError as error:
            return str(error)
        finally:
            PYTHON["stop"]()

    PYTHON["start"](3)  # the limit stays, once set
    PYTHON["stop"]()
    without = answer()
    asked = []
    tracer.asked = lambda: asked.append(tracer.ours)
    assert tracer.start(7)
    assert answer() == without
    assert asked == [True]
    assert not tracer.ours
    assert getattr(tracemalloc, name) is PYTHON[name]


def _asks(answers: list[object]) -> threading.Thread:
    thread = threading.Thread(
        target=lambda: answers.extend([tracemalloc.is_tracing(), tracemalloc.get_traceback_limit()])
    )
    thread.start()
    return thread


def test_a_thread_that_asks_while_another_stops_us_gets_what_it_would_without_us(
    tracer: TracemallocSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    PYTHON["start"](3)
    PYTHON["stop"]()
    answers: list[object] = []
    asking: list[threading.Thread] = []

    def ask_meanwhile() -> None:
        asking.append(_asks(answers))
        asking[0].join(0.2)

    monkeypatch.setattr(tracer.free_lists, "give_back", ask_meanwhile)
    assert tracer.start(7)
    tracer.stop()
    asking[0].join()
    assert answers == [False, 3]


def test_nobody_traces_while_a_thread_gets_its_answer_and_nobody_waits_for_that(
    tracer: TracemallocSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[bool] = []

    def snapshot() -> str:
        thread = threading.Thread(target=lambda: started.append(tracer.start()))
        thread.start()
        thread.join()
        return "taken"

    monkeypatch.setitem(PYTHON, "take_snapshot", snapshot)
    monkeypatch.setattr(tracemalloc, "take_snapshot", snapshot)
    tracer._wrappers["take_snapshot"] = tracer._wrapper("take_snapshot")
    assert tracer.start()
    assert tracemalloc.take_snapshot() == "taken"  # type: ignore[comparison-overlap]
    assert started == [False]


def test_a_start_that_he_imported_under_ours_works_for_ever(tracer: TracemallocSession) -> None:
    tracer.start()
    imported = tracemalloc.start
    tracer.stop()
    imported(4)
    assert (tracer.ours, tracemalloc.get_traceback_limit()) == (False, 4)
    tracemalloc.stop()
    tracer.start()
    imported(5)
    assert (tracer.ours, tracemalloc.get_traceback_limit()) == (False, 5)
    tracemalloc.stop()


def test_a_process_with_a_module_that_has_a_name_of_its_own_for_it_is_not_traced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module: Any = ModuleType("imports_start")
    module.begin = PYTHON["start"]
    tracer = TracemallocSession(1)
    tracer._modules_seen.update(sys.modules)
    assert not tracer.is_asked_directly()
    monkeypatch.setitem(sys.modules, "imports_start", module)
    assert not tracer.start()
    assert not PYTHON["is_tracing"]()


def test_his_start_with_a_wrong_number_is_his_error_and_nobody_traces(
    tracer: TracemallocSession,
) -> None:
    tracer.start()
    with pytest.raises(ValueError, match="frames"):
        tracemalloc.start(0)
    assert not tracemalloc.is_tracing()


def test_a_start_of_ours_that_fails_leaves_python_s_in_place() -> None:
    tracer = TracemallocSession(10**6)
    tracer._modules_seen.update(sys.modules)
    with pytest.raises(ValueError, match="frames"):
        tracer.start()
    assert (tracer.ours, tracemalloc.is_tracing()) == (False, False)


def test_another_s_replacement_of_start_is_not_undone(tracer: TracemallocSession) -> None:
    def other(*_: object) -> None:
        raise AssertionError("not called")

    tracer.start()
    tracemalloc.start = other
    tracer.stop()
    assert tracemalloc.start is other
    tracemalloc.start = PYTHON_S["start"]


@pytest.mark.parametrize("begun", [True, False], ids=["under ours", "after ours"])
def test_another_s_replacement_that_calls_what_it_replaced_starts_his_tracing_once(
    tracer: TracemallocSession, begun: bool
) -> None:
    tracer.start()
    replaced = tracemalloc.start
    calls: list[int] = []

    def other(frames: int = 1, /) -> None:
        calls.append(frames)
        replaced(frames)

    tracemalloc.start = other
    if not begun:
        tracer.stop()
    tracemalloc.start(5)
    assert (tracer.ours, tracemalloc.get_traceback_limit()) == (False, 5)
    assert calls == [5]
    tracer.stop()
    assert tracemalloc.get_traceback_limit() == 5
    tracemalloc.stop()
    # Our own start is no call of his function; his next one is.
    assert tracer.start()
    assert (tracer.ours, PYTHON["get_traceback_limit"](), calls) == (True, 7, [5])
    tracemalloc.start(6)
    assert (tracer.ours, tracemalloc.get_traceback_limit(), calls) == (False, 6, [5, 6])
    assert tracemalloc.start is other
    tracemalloc.stop()
    tracemalloc.start = PYTHON_S["start"]


def test_a_replacement_of_ours_that_somebody_puts_back_too_late_works_as_python_s(
    tracer: TracemallocSession,
) -> None:
    """As ``mock.patch`` does, begun in a traced run and ended after it."""
    tracer.start()
    found = tracemalloc.start
    tracer.stop()
    tracemalloc.start = found
    tracemalloc.start(4)
    assert (tracer.ours, tracemalloc.get_traceback_limit()) == (False, 4)
    tracemalloc.stop()
    assert tracer.start()
    assert PYTHON["get_traceback_limit"]() == 7
    tracer.stop()
    assert not tracemalloc.is_tracing()
    tracemalloc.start = PYTHON_S["start"]


def test_two_threads_that_take_over_at_once_both_find_his_tracing_on(
    tracer: TracemallocSession,
) -> None:
    tracer.start()
    threads = [threading.Thread(target=tracemalloc.start, args=(frames,)) for frames in (3, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tracer.ours, tracemalloc.get_traceback_limit()) == (False, 3)
    assert tracemalloc.start is PYTHON_S["start"]
    tracemalloc.stop()


def test_a_tracing_of_ours_that_somebody_stopped_is_not_stopped_twice(
    tracer: TracemallocSession,
) -> None:
    tracer.start()
    PYTHON["stop"]()
    assert (tracer.ours, tracer.session) == (True, 0)
    tracer.stop()
    assert tracer.start()


def test_traced_memory_is_what_is_alive_and_its_peak_begins_anew(
    tracer: TracemallocSession,
) -> None:
    tracer.start()
    earlier = bytearray(8 * MIB)
    del earlier
    before = tracer.begin()
    kept, passing = bytearray(2 * MIB), bytearray(5 * MIB)
    del passing
    now, peak = tracer.read()
    assert len(kept) == 2 * MIB
    assert (round((now - before) / MIB), round((peak - before) / MIB)) == (2, 7)


def rows() -> int:
    return len([{"id": number} for number in range(300)])


def test_what_the_interpreter_keeps_for_its_next_objects_is_not_read_as_alive(
    tracer: TracemallocSession,
) -> None:
    tracer.start()
    found = []
    for clears in (True, False):
        tracer.clears_free_lists = clears
        tracer.free_lists.clear()
        before = tracer.begin()
        rows()
        found.append(tracer.read()[0] - before)
    assert found[0] < 2_000 < found[1]


def test_how_many_blocks_are_alive_is_told_within_a_third(tracer: TracemallocSession) -> None:
    tracer.start()
    before = tracer.live_traces()
    kept = [bytes(100) for _ in range(100_000)]
    assert 65_000 < tracer.live_traces() - before < 135_000
    assert len(kept) == 100_000


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ((3, 10, 13), False),
        ((3, 11, 14), False),
        ((3, 12, 8), False),
        ((3, 12, 9), True),
        ((3, 13, 1), False),
        ((3, 13, 2), True),
        ((3, 14, 0), True),
    ],
)
def test_which_pythons_can_stop_beside_threads_that_are_not_theirs(
    version: tuple[int, ...], fixed: bool
) -> None:
    assert _fixed(version) is fixed


@pytest.mark.parametrize(
    ("is_fixed", "foreign", "safe"),
    [(False, True, False), (False, False, True), (True, True, True), (True, False, True)],
)
def test_stopping_is_safe_where_it_is_fixed_or_all_threads_are_python_s(
    monkeypatch: pytest.MonkeyPatch, is_fixed: bool, foreign: bool, safe: bool
) -> None:
    monkeypatch.setattr(tracemalloc_session, "_STOP_IS_FIXED", is_fixed)
    session = TracemallocSession(1, lambda: ("libother.so",) if foreign else ())
    assert session.can_stop_safely() is safe


def test_that_a_process_is_not_traced_is_said_once_with_the_thread_when_it_stays_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracemalloc_session, "_STOP_IS_FIXED", False)
    entering: list[str] = ["worker (libother.so)"]
    session = TracemallocSession(1, lambda: entering)
    told: list[int] = []
    session.on_unsafe = lambda: told.append(1)
    for _ in range(2):
        assert not session.can_stop_safely()
    entering.clear()  # it was a thread that ran just then
    assert session.can_stop_safely()
    assert (told, caplog.records) == ([], [])
    entering.append("worker (libother.so)")
    for _ in range(10):
        assert not session.can_stop_safely()
    assert told == [1]
    (record,) = caplog.records
    assert "gh-128679" in record.getMessage()
    assert record.getMessage().endswith("worker (libother.so)")


class Seen(set[str]):
    """Names of modules that were looked at, and how often it was asked."""

    asked = 0

    def __contains__(self, name: object) -> bool:
        self.asked += 1
        return super().__contains__(name)


def test_new_modules_are_found_without_touching_all_the_others() -> None:
    modules = {f"old{number}": ModuleType("old") for number in range(5_000)}
    seen = Seen(modules)
    modules |= {"new": ModuleType("new"), "old1": ModuleType("old"), "newer": ModuleType("newer")}
    assert tracemalloc_session._new_names(modules, seen) == ["newer", "new"]
    assert seen.asked < 200


def test_a_process_that_has_looked_at_nothing_looks_at_every_module() -> None:
    modules = {f"old{number}": ModuleType("old") for number in range(500)}
    assert set(tracemalloc_session._new_names(modules, set())) == set(modules)
