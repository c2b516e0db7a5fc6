"""``celery inspect memory``; ``celery control`` ``memory_capture``, ``_census`` and ``_tracing``.

These are commands of Celery's remote control. Importing this module registers them, in the worker
and in the command line alike. They run in the main process's event loop, so they only read one page
and write another. Anybody who reaches the broker can call them. So answers contain only sizes,
names, ids of tasks and places in code, no argument is a path to write to, one capture runs at a
time, and the rate of commands is limited.

Celery before 5.7 fixes the names that ``celery inspect`` and ``celery control`` accept when it
starts, before it loads the app that imports this module: `accept` adds ours to its command line.
Its commands take words in order, and no options: `accept_task_option` adds ``--task``, which
becomes the last word.

Celery has a client method for each remote command: ``app.control.inspect().memory()``,
``app.control.memory_capture()``, ``app.control.memory_census()`` and
``app.control.memory_tracing()`` are ours. They are added to Celery's client classes, and replace
nothing there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from celery.app.control import Control, Inspect
from celery.worker.control import control_command, inspect_command

from otel_celery_memory.destination import is_disabled
from otel_celery_memory.ipc.commands import CAPTURE_RUNS_MAX, CAPTURE_SECONDS_MAX, TRACING_MODES
from otel_celery_memory.ipc.records import WhyNotTraced, printable, size_text
from otel_celery_memory.settings import TRACING_FLOOR_S
from otel_celery_memory.worker.remote_control.validation import (
    ALLOWANCE_S,
    RUNS_WITHIN_S,
    RefusedError,
    Wanted,
    WorkerControl,
    begin_capture,
    begin_census,
    switch_tracing,
)

_SHOWN = 15
_NAMED = 3
"""Tasks in one sentence."""
_DEFAULT, _DEFAULT_RUNS = "default", "10"
_COPIED_BYTES, _COPIED_SHARE = 16 << 20, 0.1
"""From so much on, and from such a share of its RSS, what a process has copied is said."""
_WHY_NOT_TRACED = {
    WhyNotTraced.SLOW.value: (
        "tracing would delay it by more than max_added_latency; tried again now and then"
    ),
    WhyNotTraced.TIME_LIMIT.value: "tracing could bring it to its time limit",
    WhyNotTraced.TRACEMALLOC.value: "it uses tracemalloc itself",
}
_attached: list[WorkerControl] = []


def accept(inspect: tuple[str, ...], control: tuple[str, ...]) -> None:
    """Adds these names to the accepted ones, if this process is Celery's command line."""
    module: Any = sys.modules.get("celery.bin.control")
    for group, names in (("inspect", inspect), ("control", control)):
        for parameter in getattr(getattr(module, group, None), "params", ()):
            choices = getattr(parameter.type, "choices", None)
            if parameter.name == "action" and choices is not None:
                new = [name for name in names if name not in choices]
                parameter.type.choices = type(choices)([*choices, *new])


def accept_task_option(names: Sequence[str]) -> None:
    """Adds ``--task`` for these commands, if this process is Celery's command line."""
    module: Any = sys.modules.get("celery.bin.control")
    command: Any = getattr(module, "control", None)
    if command is None or any(parameter.name == "task" for parameter in command.params):
        return
    option: Any = getattr(module, "CeleryOption", click.Option)
    help_text = f"{' and '.join(names)}: only runs of this task."
    options = {"help_group": "Remote Control Options"} if option is not click.Option else {}
    command.params.append(option(["--task"], metavar="NAME", help=help_text, **options))
    run = command.callback

    def run_with_task(*args: Any, task: str | None = None, **kwargs: Any) -> Any:
        context = click.get_current_context()
        if task is not None:
            if kwargs.get("command", kwargs.get("action")) not in names:
                raise click.UsageError(f"--task is for {' and '.join(names)}")
            given = context.args
            context.args = [*given, *["default"] * (2 - len(given)), task]
        return run(*args, **kwargs)

    command.callback = run_with_task


def view_text(view: Mapping[str, Any], share_from_s: float = 0.0) -> str:
    """The view in words and tables: verdicts, tracing, processes, tasks, sites, losses, captures.

    The cost of tracing is also given as a share, from `share_from_s` seconds of task time on.
    """
    tracing = view.get("tracing", {})
    spent = _spent_text(tracing, share_from_s)
    head = f"tracing {tracing.get('mode', '?')}: {spent}, {tracing.get('aborted', 0)} runs aborted"
    off = [f"{each['part']} ({each['slot']})" for each in view.get("switched_off", [])]
    rest = f" and {len(off) - _SHOWN} more" if len(off) > _SHOWN else ""
    cut = ", ".join(f"{n:,} {name}" for name, n in view.get("left_out", {}).items())
    warm_up_s = view.get("warm_up_seconds", 0)
    verdicts = _verdicts_text(view, warm_up_s)
    parts = [
        verdicts,
        head
        + (f"; switched off: {', '.join(off[:_SHOWN])}{rest}" if off else "")
        + (f"; no room for {cut} more" if cut else "")
        + (
            f"; warms up, growth is told in {warm_up_s:.0f} s" if warm_up_s and not verdicts else ""
        ),
        _table(
            ("process", "pid", "RSS", "unique", "malloc free", "files", "task"),
            [
                (
                    *(p["slot"], p["pid"], size_text(p["rss"]), size_text(p.get("unique"))),
                    *(
                        size_text(p.get("malloc_free")),
                        _count_text(p.get("open_files")),
                        p["task"] or "-",
                    ),
                )
                for p in view.get("processes", [])
            ],
        ),
        _copied_text(view.get("processes", [])),
        _messages_text(view.get("messages")),
        _table(
            ("started by", "process", "processes", "RSS", "unique", "left behind"),
            [
                (
                    *(d["task"] or "-", d["slot"], f"{d['processes']:,}"),
                    *(size_text(d["rss"]), size_text(d["unique"]), f"{d['left']:,}"),
                )
                for d in view.get("descendants", [])
            ],
        ),
        _tasks_text(view.get("tasks", [])),
        _table(
            ("not traced", "because"),
            [
                (t["name"], _WHY_NOT_TRACED.get(t["not_traced"], t["not_traced"]))
                for t in view.get("tasks", [])
                if t.get("not_traced")
            ],
        ),
        _table(
            ("site", "left/run", "a minute", "runs", "of", "seen", "task"),
            [
                (
                    s["name"],
                    size_text(s["size"]),
                    size_text(s["rate"]),
                    f"{s['runs']:,}",
                    s["window"],
                    _age_text(s["age_seconds"]),
                    s["task"] or "-",
                )
                for s in view.get("sites", [])
            ],
        ),
        _table(
            ("lost", "seen", "how", "RSS", "run took", "times", "task", "id"),
            [
                (
                    each["slot"],
                    _age_text(each["age_seconds"]),
                    _how_text(each),
                    size_text(each["rss"]),
                    size_text(each["run_peak"]),
                    f"{each['times']:,}",
                    each["task"] or "-",
                    each["task_id"] or "-",
                )
                for each in view.get("losses", [])
            ],
        ),
        _table(
            ("capture", "state", "kind", "sites", "runs", "file"),
            [
                (
                    c["number"],
                    c["state"],
                    c.get("kind", "-"),
                    c.get("sites", "-"),
                    c.get("runs", "-"),
                    c.get("error") or c.get("file") or "-",
                )
                for c in view.get("captures", [])
            ],
        ),
        _table(
            ("objects of", "process", "now", "more", "runs", "held by"),
            [
                (
                    o["type"],
                    o["slot"],
                    f"{o['objects']:,}",
                    f"+{o['growth']:,}",
                    f"{o['runs']:,}",
                    o["holder"]
                    + ("" if o["alike"] == o["sampled"] else f" ({o['alike']} of {o['sampled']})"),
                )
                for o in view.get("objects", [])
                if not o["problem"]
            ],
        ),
        _table(
            ("no census", "because"),
            [(o["slot"], o["problem"]) for o in view.get("objects", []) if o["problem"]],
        ),
    ]
    return "\n\n".join(part for part in parts if part)


def _verdicts_text(view: Mapping[str, Any], warm_up_s: float) -> str:
    """A paragraph for each verdict, or that there is none; nothing where nobody decides."""
    if not view.get("verdicts_decided"):
        return ""
    verdicts = view.get("verdicts", [])
    if not verdicts:
        if warm_up_s:
            return f"no leak is suspected (warming up for {warm_up_s:.0f} s more)"
        keeps = [t for t in view.get("tasks", []) if (t.get("retained_per_run") or 0) > 0]
        if not keeps:
            return "no leak is suspected"
        names = ", ".join(printable(str(task["name"])) for task in keeps[:_NAMED])
        return (
            f"no leak is suspected yet: runs of {names} keep something, and it takes a minute or "
            "two to tell whether that goes on"
        )
    shown = [printable(str(each["text"])) for each in verdicts[:_SHOWN]]
    rest = len(verdicts) - len(shown)
    return "\n\n".join(shown + ([f"... and {rest} more verdicts"] if rest else []))


def _tasks_text(tasks: Sequence[Mapping[str, Any]]) -> str:
    """The table of tasks; with peaks of whole trees where a run has started processes."""
    with_trees = any(t.get("tree_peak") is not None for t in tasks)
    return _table(
        (
            *("task", "runs", "retained/run", "at most", "sampled", "peak"),
            *(("with processes",) if with_trees else ()),
            *("largest", "traced runs", "traced/run"),
        ),
        [
            (
                *(t["name"], f"{t['runs']:,}"),
                *(size_text(t["retained_per_run"]), size_text(t.get("retained_at_most"))),
                *(f"{t.get('sampled_runs', 0):,}", size_text(t.get("peak"))),
                *((size_text(t.get("tree_peak")),) if with_trees else ()),
                *(size_text(t.get("largest")), f"{t['traced_runs']:,}"),
                size_text(t["traced_per_run"]),
            )
            for t in tasks
        ],
    )


def _count_text(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _copied_text(processes: Sequence[Mapping[str, Any]]) -> str:
    """A line for each process that has copied much of what it shared with the main process."""
    copied = [
        p
        for p in processes
        if p["rss"] and (p.get("copied") or 0) >= max(_COPIED_BYTES, _COPIED_SHARE * p["rss"])
    ]
    copied.sort(key=lambda p: -p["copied"])
    return "\n".join(
        f"{p['slot']}: unique {size_text(p['unique'])} of {size_text(p['rss'])}, "
        f"{size_text(p['unique_at_start'])} at its start: {size_text(p['copied'])} that it shared "
        "with main are copied"
        for p in copied[:_SHOWN]
    )


def _messages_text(messages: Mapping[str, Any] | None) -> str:
    """What the main process holds, if it holds any messages."""
    if not messages or not any(messages.values()):
        return ""
    words = {"active": "run", "reserved": "wait for a process", "scheduled": "wait for their time"}
    parts = [
        f"{messages[state]:,} {doing} (bodies: {size_text(messages[f'{state}_bytes'])})"
        for state, doing in words.items()
        if messages[state]
    ]
    if messages["revoked"]:
        parts.append(f"{messages['revoked']:,} ids are revoked")
    return f"messages in main: {', '.join(parts)}"


def _spent_text(tracing: Mapping[str, Any], share_from_s: float) -> str:
    task_s, spent_s = tracing.get("task_seconds", 0.0), tracing.get("spent_seconds", 0.0)
    if not task_s:
        return "nothing measured in ten minutes"
    share = f" ({spent_s / task_s:.2%})" if task_s >= share_from_s else ""
    return f"{spent_s:.2f} s of {task_s:,.1f} s of task time in ten minutes{share}"


def _how_text(lost: Mapping[str, Any]) -> str:
    """The reason, with the signal or the exit code."""
    for name, value in (("signal", lost["signal"]), ("code", lost["exit_code"])):
        if value is not None:
            return f"{lost['reason']}, {name} {value}"
    return str(lost["reason"])


def _age_text(age_s: float) -> str:
    for unit, seconds in (("h", 3_600), ("min", 60), ("s", 1)):
        if age_s >= seconds:
            return f"{age_s / seconds:.0f} {unit} ago"
    return "now"


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return ""
    shown = [[printable(str(cell)) for cell in row] for row in rows[:_SHOWN]]
    widths = [max(len(line[i]) for line in [heads, *shown]) for i in range(len(heads))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [list(heads), *shown]
    ]
    rest = len(rows) - len(shown)
    return "\n".join(lines + ([f"... and {rest} more"] if rest else []))


def attach(control: WorkerControl) -> None:
    """Answers commands for this worker from now on."""
    _attached[:] = [control]


def detach() -> None:
    """Answers commands for no worker."""
    _attached.clear()


def attached() -> WorkerControl | None:
    """What commands are answered with; ``None`` before `attach` and after `detach`."""
    return _attached[0] if _attached else None


@inspect_command()  # type: ignore[untyped-decorator]
def memory(state: Any) -> dict[str, Any]:
    """Memory of tasks and processes: retained and traced a run, top sites, tracing."""
    try:
        control = _answering()
    except RefusedError as why:
        return {"error": str(why)}
    view = control.view()
    if view is None:
        return {"error": "there is nothing to show yet: the reporter is starting"}
    # With less task time, what tracing may always spend is more than the budget: a share would
    # mislead.
    settings = control.settings
    share_from_s = max(settings.max_added_latency, TRACING_FLOOR_S) / settings.overhead_budget
    return {"ok": view_text(view, share_from_s), "memory": view}


_WANTED: Any = {
    "args": [("amount", str), ("max_added_latency", str), ("task", str)],
    "signature": "[RUNS|SECONDSs] [max_added_latency] [--task NAME]",
}


@control_command(**_WANTED)  # type: ignore[untyped-decorator]
def memory_capture(
    state: Any, amount: str = _DEFAULT, max_added_latency: float | str = _DEFAULT, task: str = ""
) -> dict[str, Any]:
    """Trace the next runs of each process, or those of the next seconds (such as 30s)."""
    try:
        control = _answering()
        return {"ok": begin_capture(control, _wanted(amount, max_added_latency, ALLOWANCE_S, task))}
    except RefusedError as why:
        return {"error": str(why)}


@control_command(**_WANTED)  # type: ignore[untyped-decorator]
def memory_census(
    state: Any, amount: str = _DEFAULT, max_added_latency: float | str = _DEFAULT, task: str = ""
) -> dict[str, Any]:
    """Count objects by type, now and after some runs or seconds, and find what holds new ones."""
    try:
        control = _answering()
        allowance_s = control.settings.max_added_latency
        return {"ok": begin_census(control, _wanted(amount, max_added_latency, allowance_s, task))}
    except RefusedError as why:
        return {"error": str(why)}


@control_command(  # type: ignore[untyped-decorator]
    args=[("mode", str)], signature="budget|always|off"
)
def memory_tracing(state: Any, mode: str = "") -> dict[str, Any]:
    """Trace allocations within the budget, always or never, from each process's next task on."""
    try:
        control = _answering()
        if mode not in TRACING_MODES:
            raise RefusedError(f"the mode is one of {', '.join(TRACING_MODES)}")
        return {"ok": switch_tracing(control, mode)}
    except RefusedError as why:
        return {"error": str(why)}


_BY_TASK = ("memory_capture", "memory_census")
accept(inspect=("memory",), control=(*_BY_TASK, "memory_tracing"))
accept_task_option(_BY_TASK)


def _inspect_memory(self: Any) -> Any:
    """Return the memory of tasks and processes, by node; ``None`` if no worker answers.

    Returns:
        Dict: ``{HOSTNAME: {'ok': TEXT, 'memory': VIEW}}``, or ``{HOSTNAME: {'error': REASON}}``.
    """
    return self._request("memory")


def _control_memory_capture(
    self: Any,
    amount: int | str = _DEFAULT,
    max_added_latency: float | str = _DEFAULT,
    destination: Sequence[str] | None = None,
    task: str = "",
    **kwargs: Any,
) -> Any:
    """Tell all (or specific) workers to trace their next runs, or those of the next seconds.

    ``amount`` is a number of runs of each process (10 by default), or seconds such as ``30s``;
    ``max_added_latency``, in seconds, is the most that it may add to a run; ``task`` is the task
    whose runs are meant, all by default. Further keywords are those of ``broadcast``, such as
    ``reply`` and ``timeout``.
    """
    arguments = _arguments(amount, max_added_latency, task)
    return self.broadcast("memory_capture", arguments, destination, **kwargs)


def _control_memory_census(
    self: Any,
    amount: int | str = _DEFAULT,
    max_added_latency: float | str = _DEFAULT,
    destination: Sequence[str] | None = None,
    task: str = "",
    **kwargs: Any,
) -> Any:
    """Tell all (or specific) workers to count their objects, now and after their next runs.

    The arguments are those of ``memory_capture``.
    """
    arguments = _arguments(amount, max_added_latency, task)
    return self.broadcast("memory_census", arguments, destination, **kwargs)


def _arguments(amount: int | str, max_added_latency: float | str, task: str) -> dict[str, Any]:
    arguments = {"amount": str(amount), "max_added_latency": max_added_latency}
    return {**arguments, "task": task} if task else arguments


def _control_memory_tracing(
    self: Any, mode: str, destination: Sequence[str] | None = None, **kwargs: Any
) -> Any:
    """Tell all (or specific) workers to trace allocations by ``budget``, ``always`` or ``off``.

    Further keywords are those of ``broadcast``.
    """
    return self.broadcast("memory_tracing", {"mode": mode}, destination, **kwargs)


def add_client_methods(client: type[Any], **methods: Callable[..., Any]) -> None:
    """Adds methods to one of Celery's client classes; those that it has are left as they are."""
    for name, method in methods.items():
        if not hasattr(client, name):
            method.__name__ = name
            method.__qualname__ = f"{client.__qualname__}.{name}"
            setattr(client, name, method)


add_client_methods(Inspect, memory=_inspect_memory)
add_client_methods(
    Control,
    memory_capture=_control_memory_capture,
    memory_census=_control_memory_census,
    memory_tracing=_control_memory_tracing,
)


def _answering() -> WorkerControl:
    control = attached()
    if control is None and is_disabled(os.environ):
        raise RefusedError("OTEL_SDK_DISABLED=true: nothing of this worker is measured")
    if control is None:
        raise RefusedError(
            "this worker is not instrumented by otel_celery_memory, or not ready yet"
        )
    if not control.settings.remote_control:
        raise RefusedError("remote control of otel_celery_memory is switched off (remote_control)")
    if not control.rate.allows():
        raise RefusedError("too many commands within a short time: ask again in a second")
    return control


def _wanted(amount: object, max_added_latency: object, allowance_s: float, task: object) -> Wanted:
    """What the words of a command ask for; ``allowance_s`` is the default."""
    if max_added_latency != _DEFAULT:
        allowance_s = _allowance_s(max_added_latency)
    return Wanted(*_amount(amount), allowance_s, _task(task))


def _task(name: object) -> str:
    if isinstance(name, str) and name.isprintable():  # no lone surrogates either
        return name
    raise RefusedError("the task is its name, such as shop.build_report")


def _amount(text: object) -> tuple[int, float]:
    """(runs, seconds) of ``10`` or ``30s``."""
    word = str(text).strip().lower()
    word = _DEFAULT_RUNS if word == _DEFAULT else word
    try:
        if word.endswith("s"):
            seconds = float(word[:-1])
            if 1 <= seconds <= CAPTURE_SECONDS_MAX:
                return 0, seconds
        else:
            runs = int(word)
            if 1 <= runs <= CAPTURE_RUNS_MAX:
                return runs, RUNS_WITHIN_S
    except ValueError:
        pass
    raise RefusedError(
        f"{word[:40]!r} is neither runs from 1 to {CAPTURE_RUNS_MAX} nor seconds from 1s to "
        f"{CAPTURE_SECONDS_MAX:.0f}s"
    )


def _allowance_s(value: object) -> float:
    try:
        allowance_s = float(str(value))
        if 0.01 <= allowance_s <= 60:
            return allowance_s
    except ValueError:
        pass
    raise RefusedError("max_added_latency is from 0.01 to 60 seconds")
