"""Losses are counted by message, logged once a minute for each, and the last are shown."""

from __future__ import annotations

import pytest

from otel_celery_memory.reporter.losses import LOG_AGAIN_S, MESSAGES_MAX, SHOWN, Losses
from otel_celery_memory.telemetry.events import LostProcess, ProcessSnapshot
from tests.unit.fakes import FakeClock

S = 1_000_000_000
BEGINNING = (
    "otel_celery_memory: worker process 3 (pid 7) was lost in shop.build [id-1] after 2.5 s: "
)


def lost(
    task_id: str | None = "id-1", reason: str = "exited", slot: str = "3", **given: object
) -> LostProcess:
    task = None if task_id is None else "shop.build"
    age_s = None if task is None else 2.5
    process = ProcessSnapshot(slot, 7, 3 << 29, 2 << 30, task, task_id, age_s, 1 << 20)
    return LostProcess(process, reason, None, 0, **given)  # type: ignore[arg-type]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(5.0)


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def losses(lines: list[str], clock: FakeClock) -> Losses:
    return Losses(lines.append, clock)


def test_a_loss_is_logged_at_once_with_its_task_reason_and_size(
    losses: Losses, lines: list[str]
) -> None:
    losses.record(lost(exit_code=3, redelivered=True, task_rss_peak_bytes=1 << 30), 0)
    assert lines == [
        BEGINNING
        + "exited (exit code 3), RSS last seen 1.5 GiB, its run was seen to take 1.0 GiB, "
        "the broker had delivered its message before"
    ]


def test_thirty_losses_by_one_message_are_one_line_that_says_thirty(
    losses: Losses, lines: list[str], clock: FakeClock
) -> None:
    counts = []
    for _ in range(30):
        counts.append(losses.record(lost(), 0).repeated)
        losses.log_held_back()
        clock.now += 1.0
    assert counts == [*range(1, 31)]
    assert len(lines) == 1
    clock.now += LOG_AGAIN_S
    losses.log_held_back()
    losses.log_held_back()
    assert lines[1:] == [
        BEGINNING + "exited, RSS last seen 1.5 GiB, this message has killed 30 processes; "
        "28 more like it since the line before"
    ]
    (row,) = losses.view(0)
    assert row["times"] == 30


def test_what_was_held_back_is_logged_when_the_worker_ends(
    losses: Losses, lines: list[str]
) -> None:
    for _ in range(3):
        losses.record(lost(), 0)
    losses.log_held_back(all_now=True)
    losses.log_held_back(all_now=True)
    assert len(lines) == 2
    assert "this message has killed 3 processes" in lines[1]


def test_what_a_worker_that_was_killed_had_counted_goes_on(
    losses: Losses, lines: list[str]
) -> None:
    assert losses.times("id-1") == 0
    assert losses.record(lost(repeated=5), 0).repeated == 5
    assert losses.record(lost(), 0).repeated == 6
    assert losses.times("id-1") == 6
    assert len(lines) == 1
    assert lines[0].endswith("this message has killed 5 processes")


def test_other_messages_and_processes_have_lines_of_their_own(
    losses: Losses, lines: list[str]
) -> None:
    for each in (lost("a"), lost("b"), lost(None, "crashed"), lost(None, "killed", "main")):
        losses.record(each, 0)
    assert len(lines) == 4


def test_children_that_die_as_they_start_are_put_together_by_reason(
    losses: Losses, lines: list[str]
) -> None:
    assert [losses.record(lost(None, "crashed"), 0).repeated for _ in range(9)] == [None] * 9
    losses.log_held_back(all_now=True)
    assert len(lines) == 2
    assert lines[1].endswith(
        "was lost with no task: crashed, RSS last seen 1.5 GiB; 7 more like it "
        "since the line before"
    )


def test_the_last_ones_are_shown_with_their_age_the_latest_first(losses: Losses) -> None:
    for number in range(SHOWN + 5):
        losses.record(lost(f"id-{number}", exit_code=3), number * S)
    losses.record(lost("id-0", task_rss_peak_bytes=9), 20 * S)
    rows = losses.view(30 * S)
    assert [row["task_id"] for row in rows[:3]] == ["id-0", f"id-{SHOWN + 4}", f"id-{SHOWN + 3}"]
    assert len(rows) == SHOWN
    assert rows[0] == {
        "age_seconds": 10,
        "slot": "3",
        "pid": 7,
        "task": "shop.build",
        "task_id": "id-0",
        "reason": "exited",
        "signal": None,
        "exit_code": None,
        "rss": 3 << 29,
        "run_peak": 9,
        "redelivered": False,
        "times": 2,
    }


def test_messages_are_bounded_and_what_was_held_back_of_one_that_is_dropped_is_logged(
    losses: Losses, lines: list[str]
) -> None:
    losses.record(lost("first"), 0)
    losses.record(lost("first"), 0)
    for number in range(MESSAGES_MAX):
        losses.record(lost(f"id-{number}"), 0)
    assert len(lines) == MESSAGES_MAX + 2
    assert losses.record(lost("first"), 0).repeated == 1
