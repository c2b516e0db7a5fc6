"""Instructions that measuring one run of a task takes, and whether they have become more.

Unlike times, counts do not depend on what else the machine does: changes of one per cent can be
seen. The receivers of `task_prerun` and `task_postrun` are called as Celery calls them, without
Celery around them, in one process. One that measures many runs executes more instructions than one
that measures few; the difference belongs to the runs alone. System calls count as nothing. Clocks
are stopped, so that as many runs of a count are sampled as of the one before.

Callgrind counts instructions, also for each C function. As it does not see functions of Python, a
second process counts the bytecodes that each of them executes (`sys.settrace`).
`benchmarks/instructions.json` has the last counts that were committed, and
`benchmarks.instruction_counts` compares. With 3 per cent more in a case this ends with 1.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import count
from pathlib import Path
from types import CodeType, FrameType, SimpleNamespace
from typing import Any

from benchmarks.instruction_counts import (
    Case,
    Count,
    compared,
    from_json,
    greatest,
    of_callgrind,
    replaced,
    to_json,
)

ROOT = Path(__file__).resolve().parents[1]
KEPT = Path(__file__).with_name("instructions.json")
RUNS_FEW, RUNS_MANY = 200, 1_200
TRACED = 3
"""Processes of which bytecodes are counted."""
CASES = {
    "fast path": "a pool child that runs one task at a time",
    "fast path, budget": "the same, with the sampler asked before and after each run",
    "general": "a process without a slot of its own in the control page, as in pool=solo",
}
VERSIONS = ("celery", "opentelemetry-api", "psutil")
_TICK_NS = 20_000
"""A run reads a clock a few times, so that one takes about a tenth of a millisecond."""
_NO_FASTER_STRINGS = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX,-ERMS,-FSRM,-SSE4_2"
"""C functions that copy and compare are chosen by the processor: this has the same on each."""


def main(arguments: Sequence[str] = ()) -> int:
    """Counts, prints the table and compares it; 1 where a case takes too much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(CASES)}")
    parser.add_argument("--write", action="store_true", help="keep the counts for later ones")
    parser.add_argument("--strict", action="store_true", help="fail if nothing can be compared")
    parser.add_argument("--kept", type=Path, default=KEPT, help="the file of earlier counts")
    parser.add_argument("--run", nargs=3, metavar=("CASE", "RUNS", "HOW"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.run:
        case, runs, how = options.run
        _RUNS[how](case, int(runs))
        return 0
    if unknown := set(options.cases) - CASES.keys():
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if options.write and options.cases:
        parser.error("--write wants all cases")
    if shutil.which("valgrind") is None:
        print("Instructions a run: NOT COUNTED, as valgrind is not installed")
        return 1 if options.strict else 0
    new = counted(options.cases or list(CASES))
    kept = from_json(json.loads(options.kept.read_text())) if options.kept.exists() else ()
    print(f"One run of a task, CPython {new.python}, {new.build}")
    for name, case in new.cases.items():
        print(
            f"  {name:18}{case.instructions:10,.0f} instructions{case.bytecodes:8,.0f} bytecodes"
            f"   {CASES[name]}"
        )
    comparison = compared(kept, new)
    print("Compared with the counts that are kept:")
    print("\n".join(f"  {line}" for line in comparison.lines), flush=True)
    if options.write:
        options.kept.write_text(json.dumps(to_json(replaced(kept, new)), indent=1) + "\n")
        print(f"kept in {options.kept}")
        return 0
    return 1 if comparison.grew or (options.strict and not comparison.compared) else 0


def counted(cases: Sequence[str]) -> Count:
    """Counts cases, two processes at a time."""
    with ThreadPoolExecutor(2) as threads:
        found = dict(zip(cases, threads.map(_count, cases), strict=True))
    return Count(
        platform.python_version(),
        _build(),
        datetime.date.today().isoformat(),
        {name: version(name) for name in VERSIONS},
        found,
    )


def _build() -> str:
    """What decides beside the version of the interpreter how many instructions it executes."""
    options = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    optimised = [name for name in ("optimizations", "lto", "debug") if name in options]
    return ", ".join(
        [
            platform.python_compiler(),
            "+".join(optimised) or "neither optimizations nor lto",
            " ".join(platform.libc_ver()),
            platform.machine(),
        ]
    )


def _count(case: str) -> Case:
    with tempfile.TemporaryDirectory() as name:
        few, many = (_by_callgrind(case, runs, Path(name)) for runs in (RUNS_FEW, RUNS_MANY))
    runs = RUNS_MANY - RUNS_FEW
    functions = {each: (many[each] - few.get(each, 0)) / runs for each in many}
    bytecodes = _bytecodes(case)
    return Case(
        round((sum(many.values()) - sum(few.values())) / runs, 1),
        round(sum(bytecodes.values()), 2),
        greatest(functions),
        # A module's own code, or what runs once in a thousand runs, is not what a run takes.
        {each: steps for each, steps in sorted(bytecodes.items()) if steps >= 0.01},
    )


def _by_callgrind(case: str, runs: int, directory: Path) -> dict[str, int]:
    """By C function, all instructions of a process that starts, measures so many runs and ends."""
    output = directory / f"{runs}.callgrind"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"]
    done = _python([*command, sys.executable], case, runs, "measured")
    counts = of_callgrind(output.read_text(errors="replace").splitlines())
    total = re.search(r"Collected : (\d+)", done.stderr)
    if total is None or int(total[1]) != sum(counts.values()):
        raise ValueError(f"callgrind's file does not add up: {done.stderr[-400:]}")
    return counts


def _bytecodes(case: str) -> dict[str, float]:
    """By function of Python, the bytecodes of one run: the least of what was counted.

    On a busy machine a process now and then takes another way through all its runs.
    """
    found: list[dict[str, float]] = [
        json.loads(_python([sys.executable], case, RUNS_MANY, "traced").stdout)
        for _ in range(TRACED)
    ]
    return min(found, key=lambda counts: sum(counts.values()))


def _python(program: Sequence[str], case: str, runs: int, how: str) -> Any:
    command = [*program, "-m", "benchmarks.instructions", "--run", case, str(runs), how]
    # Nothing else of the environment: its size moves the stack, and variables change what runs.
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "GLIBC_TUNABLES": _NO_FASTER_STRINGS,
    }
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True)


def _run_measured(case: str, runs: int) -> None:
    """Runs as many."""
    measure = _measured(case)
    for number in range(runs):
        measure(number)


def _run_traced(case: str, runs: int) -> None:
    """Runs as many and prints, by function, how many bytecodes each of the later ones took."""
    measure = _measured(case)
    for number in range(RUNS_FEW):
        measure(number)
    counts: Counter[CodeType] = Counter()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if event == "opcode":
            counts[frame.f_code] += 1
        return trace

    own = measure.__code__
    sys.settrace(trace)
    for number in range(RUNS_FEW, runs):
        measure(number)
    sys.settrace(None)
    by_name: Counter[str] = Counter()
    for code, executed in counts.items():
        if code is not own:
            by_name[_name(code)] += executed
    total = runs - RUNS_FEW
    print(json.dumps({name: round(executed / total, 2) for name, executed in by_name.items()}))


_RUNS: dict[str, Callable[[str, int], None]] = {"measured": _run_measured, "traced": _run_traced}


def _name(code: CodeType) -> str:
    """A name that does not change when lines above are added."""
    path = Path(code.co_filename)
    parts = path.parts
    if path.is_relative_to(ROOT / "otel_celery_memory"):
        path = path.relative_to(ROOT)
    elif "site-packages" in parts:
        path = Path(*parts[parts.index("site-packages") + 1 :])
    else:
        path = Path(path.name)
    return f"{path.as_posix()}:{getattr(code, 'co_qualname', code.co_name)}"


def _stop_time_and_chance() -> None:
    """Clocks go on by so much a reading, and chance has a seed: what is due is due in each count.

    Before the package is imported, as it takes its clocks then. They stay functions of C.
    """
    whole, parts = count(10**15, _TICK_NS).__next__, count(10.0**6, _TICK_NS / 1e9).__next__
    for name in ("monotonic", "perf_counter", "time", "process_time", "thread_time"):
        setattr(time, f"{name}_ns", whole)
        setattr(time, name, parts)
    unseeded = random.Random
    random.Random = lambda seed=0: unseeded(seed)  # type: ignore[assignment, misc]


def _measured(case: str) -> Any:
    """Calls the receivers before and after a run, of which the number is given."""
    _stop_time_and_chance()
    prerun, postrun = _receivers(case)
    # Its time limit is so short that the budget leaves it alone: no run is traced.
    task = SimpleNamespace(
        name="bench.empty", time_limit=0.1, request=SimpleNamespace(is_eager=False, timelimit=None)
    )
    signal, sender = object(), task

    def measure(number: int) -> None:
        task_id = f"{number:036d}"
        prerun(signal=signal, sender=sender, task_id=task_id, task=task, args=(), kwargs={})
        postrun(
            **{"signal": signal, "sender": sender, "task_id": task_id, "task": task},
            **{"args": (), "kwargs": {}, "retval": None, "state": "SUCCESS"},
        )

    return measure


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
    sys.exit(main(sys.argv[1:]))
