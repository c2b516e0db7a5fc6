"""Instructions that measuring one run of a task takes, counted by valgrind's callgrind.

Unlike times, counts hardly depend on what else the machine does: changes of one per cent can be
seen. The receivers are called as Celery calls them, without Celery around them. A process that
measures many runs executes more instructions than one that measures few; the difference belongs to
the runs alone. System calls count as nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

RUNS_FEW, RUNS_MANY = 200, 1_200
CASES = {
    "fast path": "a pool child that runs one task at a time",
    "fast path, budget": "the same, with the sampler asked before and after each run",
    "general": "a process without a slot of its own in the control page, as in pool=solo",
}


def main(arguments: Sequence[str] = ()) -> None:
    """Count and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(CASES)}")
    parser.add_argument("--run", nargs=2, metavar=("CASE", "RUNS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.run:
        _run(options.run[0], int(options.run[1]))
        return
    if shutil.which("valgrind") is None:
        print("Instructions a run: valgrind is not installed, nothing is counted")
        return
    print(f"Instructions a run, by callgrind, CPython {sys.version.partition(' ')[0]}")
    for case in options.cases or CASES:
        print(f"  {case:18}{_instructions_per_run(case):10,.0f}   {CASES[case]}", flush=True)


def _instructions_per_run(case: str) -> float:
    few, many = (_instructions(case, runs) for runs in (RUNS_FEW, RUNS_MANY))
    return (many - few) / (RUNS_MANY - RUNS_FEW)


def _instructions(case: str, runs: int) -> int:
    """All instructions of a process that starts, measures so many runs and ends."""
    command = [
        *("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"),
        *(sys.executable, "-m", "benchmarks.instructions", "--run", case, str(runs)),
    ]
    environ = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise ValueError(f"callgrind reported no count: {done.stderr[-400:]}")
    return int(found[1])


def _run(case: str, runs: int) -> None:
    prerun, postrun = _receivers(case)
    # Its time limit is so short that the budget leaves it alone: no run is traced.
    task = SimpleNamespace(
        name="bench.empty", time_limit=0.1, request=SimpleNamespace(is_eager=False, timelimit=None)
    )
    signal, sender = object(), task
    for number in range(runs):
        task_id = f"{number:036d}"
        prerun(signal=signal, sender=sender, task_id=task_id, task=task, args=(), kwargs={})
        postrun(
            **{"signal": signal, "sender": sender, "task_id": task_id, "task": task},
            **{"args": (), "kwargs": {}, "retval": None, "state": "SUCCESS"},
        )


def _receivers(case: str) -> tuple[Callable[..., None], Callable[..., None]]:
    """Those of a process whose frames fit into its ring."""
    from otel_celery_memory.ipc.records import MAIN_SLOT
    from otel_celery_memory.settings import Settings
    from otel_celery_memory.worker.measuring.spans import TaskSpans
    from otel_celery_memory.worker.measuring.task_recorder import TaskRecorder
    from otel_celery_memory.worker.record_writer import RecordWriter

    writer = RecordWriter(slot=MAIN_SLOT if case == "general" else 0)
    settings: dict[str, Any] = {
        # No sample of the heap but the first.
        "export_interval": 3_600.0,
        "tracing": "budget" if case.endswith("budget") else "off",
        "overhead_budget": 0.0001,
    }
    recorder = TaskRecorder(writer, Settings(**settings), TaskSpans(), writer.page)
    recorder.begin(MAIN_SLOT if case == "general" else 0)
    return recorder.prerun, recorder.postrun


if __name__ == "__main__":
    main(sys.argv[1:])
