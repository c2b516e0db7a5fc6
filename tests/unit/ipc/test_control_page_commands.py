"""The control page's commands and balances: read as they were written, and checked."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import fields, replace
from zlib import crc32

import pytest

from otel_celery_memory.ipc.commands import (
    CAPTURE_RUNS_MAX,
    COMMANDS_BYTES,
    TRACING_MODES,
    Balance,
    Commands,
)
from otel_celery_memory.ipc.control_page import PAGE_BYTES, SLOTS, ControlPage
from tests.unit.forks import in_a_fork

COMMANDS = Commands("always", 7, 20, True, 123.5, 0.75, task="shop.build_report")
BALANCE = Balance(1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 16.0)
NOW_S = 100.0


@pytest.fixture
def page() -> Iterator[ControlPage]:
    made = ControlPage.create(clock_s=lambda: NOW_S)
    yield made
    made.close()


def test_a_new_page_has_no_commands_and_empty_balances(page: ControlPage) -> None:
    assert (page.commands(), page.load(-1), page.load(3)) == (
        Commands(),
        Balance(),
        Balance(),
    )
    assert page.totals() == (0.0, 0.0)


@pytest.mark.parametrize("mode", ["", *TRACING_MODES])
def test_commands_are_read_as_they_were_written(page: ControlPage, mode: str) -> None:
    commands = replace(COMMANDS, mode=mode)
    page.set_commands(commands)
    assert page.commands() == commands


def test_a_census_and_a_task_of_a_long_name_are_read_as_they_were_written(
    page: ControlPage,
) -> None:
    commands = Commands("off", 0, 10, False, 123.5, 0.25, census=9, task="ä" * 127)
    page.set_commands(commands)
    assert (page.commands(), page.commands().number) == (commands, 9)


def test_each_write_of_commands_changes_the_version_and_nothing_else_does(
    page: ControlPage,
) -> None:
    numbers = [page.commands_version()]
    for _ in range(3):
        page.set_commands(COMMANDS)
        page.save(0, BALANCE)
        page.drop_counters.count(-1)
        numbers.append(page.commands_version())
    assert len(set(numbers)) == 4


def test_the_version_wraps_and_does_not_raise(page: ControlPage) -> None:
    os.pwrite(page.fd, b"\xff" * 8, 0)
    page.set_commands(COMMANDS)
    assert (page.commands_version(), page.commands()) == (bytes(8), COMMANDS)


def test_a_forked_child_and_a_process_with_the_descriptor_read_the_commands(
    page: ControlPage,
) -> None:
    other = ControlPage(os.dup(page.fd))
    in_a_fork(lambda: other.set_commands(Commands("off")))
    assert (page.commands(), other.commands()) == (Commands("off"), Commands("off"))
    other.close()


def test_a_page_of_one_process_is_shared_with_those_it_forks() -> None:
    page = ControlPage()
    in_a_fork(lambda: page.set_commands(Commands("always")))
    assert page.commands() == Commands("always")
    page.close()


@pytest.mark.parametrize(
    "field",
    [
        {"capture": 2**63},
        {"capture": 0, "census": 2**63},
        {"census": 8},
        {"runs": CAPTURE_RUNS_MAX + 1},
        {"until_s": float("nan")},
        {"until_s": float("inf")},
        {"until_s": NOW_S + 601},
        {"allowance_s": -0.1},
        {"allowance_s": float("nan")},
        {"allowance_s": 1e9},
    ],
    ids=str,
)
def test_commands_with_an_impossible_value_are_the_default(
    page: ControlPage, field: dict[str, float]
) -> None:
    page.set_commands(replace(COMMANDS, **field))  # type: ignore[arg-type]
    assert page.commands() == Commands()


@pytest.mark.parametrize("at", [8, 32], ids=["mode", "signal"])
def test_commands_with_an_unknown_mode_or_flag_are_the_default(page: ControlPage, at: int) -> None:
    page.set_commands(COMMANDS)
    body = bytearray(os.pread(page.fd, COMMANDS_BYTES - 8, 0))
    body[at] = 4
    os.pwrite(page.fd, body + crc32(body).to_bytes(8, "little"), 0)
    assert page.read_commands() == Commands()


def test_half_written_commands_are_not_read_wherever_they_are_torn(page: ControlPage) -> None:
    page.set_commands(COMMANDS)
    before = os.pread(page.fd, COMMANDS_BYTES, 0)
    page.set_commands(replace(COMMANDS, mode="off", capture=8, until_s=NOW_S + 30))
    after = os.pread(page.fd, COMMANDS_BYTES, 0)
    whole = {before, after}
    for torn in range(1, COMMANDS_BYTES):
        for found in (after[:torn] + before[torn:], before[:torn] + after[torn:]):
            os.pwrite(page.fd, found, 0)
            assert (page.read_commands() is None) is (found not in whole)
            assert found in whole or page.commands() == Commands()


def test_commands_that_change_all_the_time_are_read_complete_or_not_at_all(
    page: ControlPage,
) -> None:
    given = {
        number: Commands(TRACING_MODES[number % 3], number, number, False, NOW_S + number, 1.0)
        for number in range(1, 500)
    }
    pid = os.fork()
    if pid == 0:
        for commands in [*given.values()] * 20:
            page.set_commands(commands)
        os._exit(0)
    seen = set()
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        found = page.read_commands()
        if found is not None and found.capture:
            assert found == given[found.capture]
            seen.add(found.capture)
    assert page.read_commands() == given[499]
    assert seen


def test_random_garbage_is_never_an_error_and_never_a_command_out_of_bounds(
    page: ControlPage,
) -> None:
    chance = random.Random(3)
    for _ in range(300):
        os.pwrite(page.fd, chance.randbytes(PAGE_BYTES), 0)
        commands = page.commands()
        assert commands.runs <= CAPTURE_RUNS_MAX
        assert commands.until_s <= NOW_S + 600
        balance = page.load(chance.randrange(SLOTS))
        assert 0 <= balance.spent_s < 1e12
        task_s, spent_s = page.totals()
        assert 0 <= task_s < 1e15
        assert 0 <= spent_s < 1e15


def test_each_slot_has_its_own_balance_and_the_totals_are_of_all(page: ControlPage) -> None:
    page.save(-1, BALANCE)
    page.save(0, replace(BALANCE, task_s=10.0, spent_s=0.25))
    assert (page.load(-1), page.load(1)) == (BALANCE, Balance())
    assert page.load(0).task_s == 10.0
    assert page.totals() == (11.5, 2.75)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 1e13])
@pytest.mark.parametrize("name", [field.name for field in fields(Balance)])
def test_a_balance_with_an_impossible_value_is_empty(
    page: ControlPage, name: str, value: float
) -> None:
    page.save(2, replace(BALANCE, **{name: value}))
    assert page.load(2) == Balance()


def test_balance_and_counters_of_a_slot_do_not_overlap(page: ControlPage) -> None:
    for slot in (-1, 0, 1, SLOTS - 2):
        page.save(slot, BALANCE)
        page.drop_counters.count(slot)
        page.count_captured(slot, 3)
    page.drop_counters.count_damaged(1)
    assert page.drop_counters.counts().total == 5
    assert [page.load(slot) for slot in (-1, 0, 1, SLOTS - 2)] == [BALANCE] * 4
    assert page.commands() == Commands()


def test_captured_windows_are_counted_for_each_slot_and_the_last_capture(
    page: ControlPage,
) -> None:
    for _ in range(3):
        page.count_captured(0, 4)
    page.count_captured(1, 4)
    assert [page.captured(slot, 4) for slot in (-1, 0, 1)] == [0, 3, 1]
    page.count_captured(0, 5)
    assert (page.captured(0, 4), page.captured(0, 5)) == (0, 1)


def test_slots_that_share_a_cell_count_no_captures(page: ControlPage) -> None:
    page.count_captured(SLOTS, 4)
    assert [page.captured(slot, 4) for slot in (SLOTS - 2, SLOTS, SLOTS + 1)] == [0, 0, 0]
