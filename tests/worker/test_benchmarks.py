"""The shortest form of the benchmarks runs on real workers and has all its figures."""

from __future__ import annotations

from benchmarks.progress import Progress
from benchmarks.side_by_side import Effort, measured, table


def test_contenders_are_measured_side_by_side_and_have_collected_what_they_claim() -> None:
    told = measured(
        Effort(least_rounds=1, most_rounds=1, seconds=0.0, scale=0.1),
        Progress(silent=True),
        ("bare", "bare_again", "default", "otel", "psutil"),
        ("empty", "mix"),
    )
    run = {"bare", "bare_again", "default", "otel", "psutil"}
    assert {name: each["not_run"] for name, each in told["contenders"].items()} == dict.fromkeys(
        run, ""
    )
    # Batches of 40 and of 30, one to warm up and one that is measured, and what says the end.
    sent = 2 * (40 + 30) + 4
    assert told["contenders"]["default"]["collected"]["tasks measured"] == sent
    assert told["contenders"]["otel"]["collected"]["spans"] == sent
    assert told["contenders"]["psutil"]["collected"] == {"tasks read": sent, "names": 22}
    assert [each["lacks"] for each in told["contenders"].values()] == [""] * len(run)
    for workload in told["workloads"].values():
        assert workload["figures"].keys() == run
        for figures in workload["figures"].values():
            assert 0 < figures["p50_us"] <= figures["p99_us"] <= figures["longest_us"]
            assert figures["cpu_us"] > 0
    assert all(each["memory"]["child"] > 0 for each in told["contenders"].values())
    assert "bare again" in table(told)
