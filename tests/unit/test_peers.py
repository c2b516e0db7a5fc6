"""What the runs of our peers' suites are compared by."""

from __future__ import annotations

from peers.__main__ import page
from peers.suites import ENDED_BADLY, SUITES, WAYS, WITHOUT, compared, of_phases


def phases(test: str, setup: str, call: str | None, teardown: str) -> list[list[str]]:
    """What pytest reports of one test."""
    told = [[test, "setup", setup], [test, "call", call or ""], [test, "teardown", teardown]]
    return [each for each in told if each[2]]


def test_a_test_has_passed_if_all_its_phases_have() -> None:
    assert of_phases(phases("t", "passed", "passed", "passed")) == {"t": "passed"}


def test_a_test_has_failed_if_it_or_what_comes_before_has() -> None:
    for told in (
        phases("t", "failed", None, "passed"),
        phases("t", "passed", "failed", "passed"),
        phases("t", "passed", "failed", "failed"),
    ):
        assert of_phases(told) == {"t": "failed"}


def test_a_test_after_which_something_is_wrong_has_an_outcome_of_its_own() -> None:
    assert of_phases(phases("t", "passed", "passed", "failed")) == {"t": ENDED_BADLY}


def test_a_test_that_is_skipped_has_not_passed() -> None:
    assert of_phases(phases("t", "skipped", None, "passed")) == {"t": "skipped"}


def test_a_test_that_is_run_again_is_what_its_last_run_was() -> None:
    again = [["t", "setup", "passed"], ["t", "call", "rerun"], ["t", "teardown", "passed"]]
    assert of_phases(again + phases("t", "passed", "passed", "passed")) == {"t": "passed"}
    assert of_phases(again + phases("t", "passed", "failed", "passed")) == {"t": "failed"}


def test_a_test_that_did_not_run_with_us_is_a_difference() -> None:
    without = {"same": "failed", "gone": "passed", "other": "passed"}
    with_us = {"same": "failed", "other": "failed", "new": "passed"}
    assert compared(without, with_us) == {
        "gone": ("passed", "not run"),
        "other": ("passed", "failed"),
        "new": ("not run", "passed"),
    }


def test_the_page_has_a_row_of_each_run_and_says_what_was_not_run() -> None:
    suite = SUITES[0]
    way = next(name for name in suite.ways() if name != WITHOUT)
    results = {
        f"{suite.name} | {way}": {
            "counts": {"passed": 7, "failed": 1},
            "differences": {"t::x": ["passed", "failed"]},
            "versions": "celery 5.7.0",
            "date": "2026-11-28",
        }
    }
    assert "not explained yet" in page(results, {"t::* skipped": "for this reason"})
    text = page(results, {"t::* failed": "for this reason"})
    assert "not explained yet" not in text
    assert f"| {suite.name} | {way} | 7 | 1 | 0 | 1 | celery 5.7.0, 2026-11-28 |" in text
    assert f"| {suite.name} | {WITHOUT} | not run |" in text
    why = f"passed without us, failed with us ({way}): for this reason"
    assert f"- 1 of `t::*`: {why}" in text
    assert text.count("| not run |") == sum(len(each.ways()) for each in SUITES) - 1


def test_a_suite_that_starts_workers_is_run_with_a_reporter_alone() -> None:
    for suite in SUITES:
        in_process = [name for name in suite.ways() if "PEERS_PROVIDER" in WAYS[name]]
        assert bool(in_process) != suite.starts_workers
