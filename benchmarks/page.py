"""The tables of the documentation, made of the figures that are kept: nobody types one.

``make bench ARGS="--json benchmarks/results.json"`` keeps them, ``make docs`` writes the tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.workloads import WORKLOADS

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
INSTRUCTIONS = HERE / "instructions.json"
_NOT_MEASURED = "Not measured yet."
_GROWTH = {
    "names": "task names",
    "children": "children",
    "heap": "live heap, MiB",
}
_MIB = 1 << 20
_WHY = 90
"""Letters of a reason that are shown."""
_BUSY = 0.2
"""With more of the machine used by others, figures are said to be those of a busy one."""
Results = Mapping[str, Any]


def tables() -> dict[str, str]:
    """The text of each part by its name, from the files beside this one."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return tables_of(results, json.loads(INSTRUCTIONS.read_text()))


def tables_of(results: Results, counts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The same from values; a part that was not measured says so."""
    parts: Mapping[str, tuple[str, Callable[[Any], str]]] = {
        "bench-cpu": ("side_by_side", _cpu),
        "bench-noise": ("side_by_side", _noise),
        "bench-latency": ("side_by_side", _latency),
        "bench-memory": ("side_by_side", _memory),
        "bench-collected": ("side_by_side", _collected),
        "bench-tracer": ("tracer", _tracer),
        "bench-reporter": ("reporter", _reporter),
        "bench-detection": ("detection", _detection),
        "bench-growth": ("growth", _growth),
    }
    return {
        "bench-machine": _machine(results),
        "bench-instructions": _instructions(counts),
        "bench-cost": _cost(results),
        **{
            name: make(results[part]["found"]) if part in results else _NOT_MEASURED
            for name, (part, make) in parts.items()
        },
    }


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def _machine(results: Results) -> str:
    if not results:
        return _NOT_MEASURED
    rows = []
    for part, each in results.items():
        versions = ", ".join(f"{name} {number}" for name, number in each["versions"].items())
        rows.append(
            (
                part.replace("_", " "),
                f"{each['date']}, {each['form']} form, {each['seconds'] / 60:.0f} min",
                f"{each['processors']} of {each['processor']}, {each['memory_gib']} GiB, "
                f"Linux {each['kernel']}",
                f"CPython {each['python']}, {versions}",
                f"{each['others_share']:.0%}",
            )
        )
    head = ("part", "when", "machine", "versions", "used by other processes meanwhile")
    return "\n\n".join(filter(None, (_table(head, rows), _warning(results))))


def _warning(results: Results) -> str:
    busy = [
        f"{part.replace('_', ' ')} {each['others_share']:.0%}"
        for part, each in results.items()
        if each["others_share"] > _BUSY
    ]
    if not busy:
        return ""
    return (
        f"**Measured beside other work** (of the machine: {', '.join(busy)}), and to be measured "
        "again on a quiet machine: times, latencies and ratios are those of a busy one."
    )


def _labels(found: Results) -> dict[str, str]:
    return {name: each["label"] for name, each in found["contenders"].items()}


def _by_workload(found: Results, cell: Callable[[Mapping[str, float]], str]) -> str:
    """A row of each contender that was run, a column of each workload."""
    workloads = found["workloads"]
    rows = []
    for name, contender in found["contenders"].items():
        figures = [each["figures"].get(name) for each in workloads.values()]
        if contender["lacks"]:
            told = [f"not measured: it collected no {contender['lacks']}"]
        elif not any(figures):
            told = [f"**not run**: {contender['not_run']}"]
        else:
            told = [cell(each) if each else "-" for each in figures]
        rows.append((contender["label"], *told, *[""] * (len(figures) - len(told))))
    return _table(("", *(each["label"] for each in workloads.values())), rows)


def _cpu(found: Results) -> str:
    return _by_workload(
        found, lambda of: f"{of['cpu_ratio']:.2f}<br>{of['low']:.2f} to {of['high']:.2f}"
    )


def _noise(found: Results) -> str:
    lines = [
        f"- {each['label']}, {each['rounds']} rounds: {each['noise']}"
        for each in found["workloads"].values()
    ]
    lines += [
        f"- {each.label}: **not measured** in this run"
        for name, each in WORKLOADS.items()
        if name not in found["workloads"]
    ]
    return "\n".join(lines)


def _latency(found: Results) -> str:
    return _by_workload(found, lambda of: f"{_ms(of['p50_us'])} / {_ms(of['p99_us'])}")


def _ms(microseconds: float) -> str:
    milliseconds = microseconds / 1e3
    return f"{milliseconds:,.2f}" if milliseconds < 10 else f"{milliseconds:,.0f}"


def _memory(found: Results) -> str:
    bare = found["contenders"]["bare"]["memory"]
    rows = []
    for each in found["contenders"].values():
        memory = each["memory"]
        if memory is None:
            rows.append((each["label"], f"**not run**: {each['not_run']}", "", "", ""))
            continue
        child, worker = memory["child"] / _MIB, memory["worker"] / _MIB
        rows.append(
            (
                each["label"],
                f"{child:.1f}",
                f"{child - bare['child'] / _MIB:+.1f}",
                f"{worker:.1f}",
                f"{worker - bare['worker'] / _MIB:+.1f}",
            )
        )
    return _table(("private MiB", "child", "added", "whole worker", "added"), rows)


def _collected(found: Results) -> str:
    rows = []
    for each in found["contenders"].values():
        got = ", ".join(f"{count:,} {what}" for what, count in each["collected"].items())
        versions = ", ".join(f"{name} {number}" for name, number in each["versions"].items())
        rows.append((each["label"], each["configured"], versions or "-", got or "-"))
    return _table(("contender", "configured", "version", "what arrived in this run"), rows)


def _tracer(found: Results) -> str:
    rows = [
        (
            variant,
            f"{cpu_us:.1f}",
            f"{found['added_us'][variant]:.1f}",
            f"{found['of_theirs'][variant]:.2f}" if variant in found["of_theirs"] else "",
        )
        for variant, cpu_us in found["cpu_us"].items()
    ]
    return _table(("", "µs a task", "added", "of what OpenTelemetry's adds"), rows)


def _reporter(found: Results) -> str:
    return _table(
        ("CPU a task", "CPU when idle", "RSS", "frames dropped"),
        [
            (
                f"{found['cpu_us']:.1f} µs",
                f"{found['idle_ms_a_second']:.1f} ms a second",
                f"{found['rss_mib']:.1f} MiB",
                str(found["dropped"]),
            )
        ],
    )


def _instructions(counts: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            f"CPython {count['python']}, {count['build']}",
            name,
            f"{case['instructions']:,.0f}",
            f"{case['bytecodes']:,.0f}",
        )
        for count in counts
        for name, case in count["cases"].items()
    ]
    return _table(("interpreter", "case", "instructions a run", "bytecodes a run"), rows)


def _detection(found: Results) -> str:
    contenders: Mapping[str, str] = found["contenders"]
    run = [name for name in contenders if name not in found["not_run"]]
    rows = []
    for leak, readings in found["leaks"].items():
        cells = (_cell(readings[name]) for name in run)
        rows.append((f"{leak}<br>`{found['tasks'][leak]}` leaks", *cells))
    lines = [_table(("leak", *(contenders[name] for name in run)), rows), ""]
    right = []
    for name in run:
        of = [each[name] for each in found["leaks"].values() if not each[name]["broken"]]
        count = sum(bool(each["right"]) for each in of)
        right.append(f"{contenders[name]} {count} of {len(of)}")
    lines.append(f"Right, of those that were run: {', '.join(right)}.")
    shortest, longest = min(found["seconds"].values()), max(found["seconds"].values())
    lines.append(
        f"Tasks were sent for {shortest:.0f} to {longest:.0f} s, {found['together']} workers at a "
        "time; who says nothing by then may say something later."
    )
    for name, why in found["not_run"].items():
        lines.append(f"**Not run**: {contenders[name]}: {why}.")
    return "\n".join(lines)


def _cell(reading: Mapping[str, Any]) -> str:
    if reading["broken"]:
        why = " ".join(reading["broken"].split())[:_WHY]
        return f"**{why}**" if why.startswith("not run") else f"**broke**: {why}"
    if not reading["first"]:
        return "nothing"
    after_s = reading["after_s"]
    after = f"<br>after {after_s:.0f} s" if reading["right"] and after_s is not None else ""
    verdict = "right" if reading["right"] else "**wrong**"
    return f"{verdict}, {reading['says'].rstrip(':')}: `{reading['first']}`{after}"


def _growth(found: Results) -> str:
    parts = []
    for what, head in _GROWTH.items():
        if what not in found:
            continue
        rows = []
        for row in found[what]:
            size = next(iter(row.values()))
            rows.append(
                (
                    f"{size:,}",
                    f"{row['cpu_ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})",
                    f"{row['reporter_us']:.0f}",
                    f"{_ms(row['p99_us'])} / {_ms(row['p99_bare_us'])}",
                    f"{_ms(row['longest_us'])} / {_ms(row['longest_bare_us'])}",
                    f"{row['added_worker_bytes'] / _MIB:+.1f}",
                )
            )
        columns = (
            *(head, "CPU of bare", "reporter, µs a task", "p99, ms: with / bare"),
            *("longest run, ms: with / bare", "private MiB added to the worker"),
        )
        parts.append(_table(columns, rows))
    if "reporter" in found:
        rows = [
            (
                f"{row['tasks_a_second']:,}",
                f"{row['frames_a_second']:,.0f}",
                f"{row['cpu_us']:.1f}",
                f"{row['share_of_a_core']:.0%}",
                f"{row['dropped']:,} ({row['dropped_share']:.1%})",
                f"{row['rss_bytes'] / _MIB:.0f}",
            )
            for row in found["reporter"]
        ]
        columns = (
            *("tasks a second wanted", "frames a second written", "reporter, µs a task"),
            *("of a core", "frames dropped", "RSS, MiB"),
        )
        parts.append(_table(columns, rows))
    return "\n\n".join(parts)


def _cost(results: Results) -> str:
    """What this package costs by default, in a few lines."""
    rows: list[tuple[str, str]] = []
    if "side_by_side" in results:
        found = results["side_by_side"]["found"]
        for each in found["workloads"].values():
            ours, again = each["figures"].get("default"), each["figures"].get("bare_again")
            if ours and again:
                rows.append(
                    (
                        f"CPU of a whole worker, reporter and tracing included, {each['label']}",
                        f"{ours['cpu_ratio']:.2f} times the worker's alone "
                        f"({ours['low']:.2f} to {ours['high']:.2f}), {ours['added_us']:+.0f} µs a "
                        f"task; a second worker without anything: {again['cpu_ratio']:.2f}",
                    )
                )
        memory = {name: each["memory"] for name, each in found["contenders"].items()}
        if memory.get("default") and memory.get("bare"):
            added = memory["default"]["child"] - memory["bare"]["child"]
            rows.append(("private memory added to a child", f"{added / _MIB:.1f} MiB"))
    if "tracer" in results:
        found = results["tracer"]["found"]
        for variant, ratio in found["of_theirs"].items():
            rows.append(
                (
                    f"added to Celery's tracer for an empty task, {variant}",
                    f"{found['added_us'][variant]:.0f} µs, {ratio:.2f} times what "
                    "`opentelemetry-instrumentation-celery` with an SDK adds in the same run",
                )
            )
    if "reporter" in results:
        found = results["reporter"]["found"]
        rows += [
            ("reporter: CPU a task", f"{found['cpu_us']:.1f} µs"),
            ("reporter: RSS", f"{found['rss_mib']:.0f} MiB"),
            (
                "frames dropped at 5,000 tasks a second, in bursts of 2,500",
                str(found["dropped"]),
            ),
        ]
    if not rows:
        return _NOT_MEASURED
    return "\n\n".join(filter(None, (_table(("what", "figure"), rows), _warning(results))))
