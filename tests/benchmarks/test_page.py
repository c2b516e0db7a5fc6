"""The documentation's tables say what was measured, and what was not."""

from __future__ import annotations

from typing import Any

from benchmarks.page import tables_of

FIGURES: dict[str, Any] = {
    **{"cpu_ratio": 1.0, "low": 1.0, "high": 1.0, "cpu_us": 900.0, "added_us": 0.0},
    **{"reporter_us": 0.0, "p50_us": 800.0, "p99_us": 12_345.0, "longest_us": 1.0},
    **{"rounds": 3, "runs": 300},
}


def contender(label: str, **what: Any) -> dict[str, Any]:
    return {
        **{"label": label, "configured": "so", "versions": {"x": "1.0"}, "not_run": ""},
        **{"collected": {"points": 1_234}, "lacks": "", "memory": None},
        **what,
    }


def memory(child: int, worker: int) -> dict[str, int]:
    return {"child": child << 20, "worker": worker << 20, "reporter_rss": 0}


def results() -> dict[str, Any]:
    found = {
        "contenders": {
            "bare": contender("bare", memory=memory(10, 30)),
            "bare_again": contender("bare again", memory=memory(10, 30)),
            "default": contender("ours", memory=memory(11, 60)),
            "memray": contender("memray", not_run="memray is not installed"),
            "otel": contender("otel", lacks="spans", memory=memory(12, 40)),
        },
        "workloads": {
            "empty": {
                "label": "empty",
                "rounds": 3,
                "noise": "TOO NOISY",
                "figures": {
                    "bare": FIGURES,
                    "bare_again": FIGURES,
                    "default": {**FIGURES, "cpu_ratio": 1.234, "low": 1.2, "high": 1.3},
                    "otel": FIGURES,
                },
            }
        },
    }
    about = {
        **{"date": "2026-11-30", "form": "short", "seconds": 420, "processors": 2},
        **{"processor": "One", "memory_gib": 4, "kernel": "6.1", "python": "3.11.7"},
        **{"versions": {"celery": "5.7.0"}, "others_share": 0.8},
    }
    return {"side_by_side": {**about, "found": found}}


def test_each_contender_has_a_row_and_what_was_not_run_says_why() -> None:
    rows = tables_of(results(), [])["bench-cpu"].splitlines()
    assert rows[0] == "|  | empty |"
    assert rows[2:] == [
        "| bare | 1.00<br>1.00 to 1.00 |",
        "| bare again | 1.00<br>1.00 to 1.00 |",
        "| ours | 1.23<br>1.20 to 1.30 |",
        "| memray | **not run**: memray is not installed |",
        "| otel | not measured: it collected no spans |",
    ]


def test_latencies_memory_noise_and_what_arrived_are_told() -> None:
    told = tables_of(results(), [])
    assert "| bare | 0.80 / 12 |" in told["bench-latency"]
    assert "| ours | 11.0 | +1.0 | 60.0 | +30.0 |" in told["bench-memory"]
    noise = told["bench-noise"].splitlines()
    assert noise[0] == "- empty, 3 rounds: TOO NOISY"
    assert noise[-1] == "- a million objects alive: **not measured** in this run"
    assert "| ours | so | x 1.0 | 1,234 points |" in told["bench-collected"]


def test_the_machine_and_what_else_it_did_are_told() -> None:
    assert "2026-11-30, short form, 7 min" in tables_of(results(), [])["bench-machine"]
    assert "| 80% |" in tables_of(results(), [])["bench-machine"]
    for part in ("bench-machine", "bench-cost"):
        assert (
            "**Measured beside other work** (of the machine: side by side 80%)"
            in (tables_of(results(), [])[part])
        )


def test_what_was_not_measured_says_so() -> None:
    told = tables_of({}, [])
    assert {told[name] for name in ("bench-machine", "bench-cpu", "bench-cost")} == {
        "Not measured yet."
    }


def test_detection_tells_right_wrong_and_nothing_apart() -> None:
    def reading(**what: Any) -> dict[str, Any]:
        start = {"first": "", "says": "nothing", "right": False, "after_s": None, "broken": ""}
        return {**start, **what}

    found = {
        "contenders": {"default": "ours", "psutil": "psutil", "memray": "memray", "gone": "gone"},
        "not_run": {"gone": "gone is not installed"},
        "leaks": {
            "a list": {
                "default": reading(first="f x.py:1", says="task and place", right=True, after_s=61),
                "psutil": reading(first="spike", says="task"),
                "memray": reading(),
            }
        },
        "tasks": {"a list": "append"},
        "seconds": {"a list": 160.0},
        "together": 5,
    }
    told = tables_of({"detection": {**results()["side_by_side"], "found": found}}, [])
    lines = told["bench-detection"].splitlines()
    assert lines[2] == (
        "| a list<br>`append` leaks | right, task and place: `f x.py:1`<br>after 61 s "
        "| **wrong**, task: `spike` | nothing |"
    )
    assert lines[4] == ("Right, of those that were run: ours 1 of 1, psutil 0 of 1, memray 0 of 1.")
    assert lines[5].startswith("Tasks were sent for 160 to 160 s, 5 workers at a time")
    assert lines[6] == "**Not run**: gone: gone is not installed."
