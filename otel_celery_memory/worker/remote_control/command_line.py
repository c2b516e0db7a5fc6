"""``celery -A shop memory``: our remote commands, from any client where this package is installed.

The entry point ``celery.commands`` names `memory`. Celery's command line loads it each time,
whether the app is instrumented or not. So it knows ``celery inspect memory`` and ``celery control
memory_...`` too: importing `commands` registers them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click
from celery.bin.base import (
    COMMA_SEPARATED_LIST,
    CeleryCommand,
    CeleryOption,
    handle_preload_options,
)
from kombu.utils.json import dumps

from otel_celery_memory.ipc.commands import TRACING_MODES
from otel_celery_memory.worker.remote_control import commands  # noqa: F401  # registers them

_UNAVAILABLE = 69
"""Exit code where no worker answers, as that of ``celery inspect``."""
_REMOTE = "Remote Control Options"


class _NoAnswerError(click.ClickException):
    exit_code = _UNAVAILABLE


def _remote(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of Celery's own remote commands."""
    for option in (
        click.option(
            "-j", "--json", "as_json", cls=CeleryOption, is_flag=True, help_group=_REMOTE,
            help="Use json as output format.",
        ),
        click.option(
            "-d", "--destination", cls=CeleryOption, type=COMMA_SEPARATED_LIST, help_group=_REMOTE,
            help="Comma separated list of destination node names.",
        ),
        click.option(
            "-t", "--timeout", cls=CeleryOption, type=float, default=1.0, help_group=_REMOTE,
            help="Timeout in seconds waiting for reply.",
        ),
    ):  # fmt: skip
        function = option(function)
    return click.pass_context(function)


@click.group(invoke_without_command=True)
@click.pass_context
@handle_preload_options  # type: ignore[untyped-decorator]
def memory(context: click.Context, **_: Any) -> None:
    """Memory of workers, measured by otel_celery_memory."""
    if context.invoked_subcommand is None:
        context.invoke(view, timeout=1.0, destination=None, as_json=False)


@memory.command(cls=CeleryCommand)
@_remote
def view(context: click.Context, **options: Any) -> None:
    """Show what tasks retain, what processes have, top sites and losses: as inspect memory."""
    _ask(context, "memory", {}, **options)


def _amount(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the arguments of a capture."""
    for add in (
        click.option("--task", metavar="NAME", default="", help="Only runs of this task."),
        click.option(
            "--max-added-latency",
            metavar="S",
            default="default",
            help="The most that it may add to a run, in seconds.",
        ),
        click.argument("amount", metavar="[RUNS|SECONDSs]", default="default"),
    ):
        function = add(function)
    return function


@memory.command(cls=CeleryCommand)
@_amount
@_remote
def capture(context: click.Context, **options: Any) -> None:
    """Trace the next runs of each process, or those of the next seconds (such as 30s)."""
    _ask_amount(context, "memory_capture", **options)


@memory.command(cls=CeleryCommand)
@_amount
@_remote
def census(context: click.Context, **options: Any) -> None:
    """Count objects by type, now and after some runs or seconds, and find what holds new ones."""
    _ask_amount(context, "memory_census", **options)


@memory.command(cls=CeleryCommand)
@click.argument("mode", type=click.Choice(TRACING_MODES))
@_remote
def tracing(context: click.Context, mode: str, **options: Any) -> None:
    """Trace allocations within the budget, always or never, from each process's next task on."""
    _ask(context, "memory_tracing", {"mode": mode}, **options)


def _ask_amount(
    context: click.Context,
    command: str,
    amount: str,
    max_added_latency: str,
    task: str,
    **options: Any,
) -> None:
    arguments = {"amount": amount, "max_added_latency": max_added_latency}
    _ask(context, command, {**arguments, "task": task} if task else arguments, **options)


def _ask(
    context: click.Context,
    command: str,
    arguments: Mapping[str, Any],
    *,
    timeout: float,
    destination: list[str] | None,
    as_json: bool,
    **_: Any,
) -> None:
    """Prints what each worker answers. Exits with 1 if one refused, 69 if none answered."""
    control = context.obj.app.control
    answers = control.broadcast(
        command, arguments=dict(arguments), destination=destination, reply=True, timeout=timeout
    )
    by_node = {node: answer for each in answers or () for node, answer in each.items()}
    if not by_node:
        raise _NoAnswerError(f"no worker answered within {timeout:g} s")
    refused = {node: _refusal(command, answer) for node, answer in by_node.items()}
    if as_json:
        context.obj.echo(dumps(by_node))  # type: ignore[no-untyped-call]
    else:
        for node, answer in sorted(by_node.items()):
            context.obj.echo(f"{context.obj.style(node, fg='cyan', bold=True)}")
            context.obj.echo(refused[node] or str(answer["ok"]))
    context.exit(1 if any(refused.values()) else 0)


def _refusal(command: str, answer: Any) -> str:
    """Why a worker refused; empty if it did not."""
    if isinstance(answer, dict) and "ok" in answer:
        return ""
    why = str(answer.get("error") if isinstance(answer, dict) else answer)
    if why == repr(KeyError(command)):
        return "error: otel_celery_memory is not installed where this worker runs"
    return f"error: {why}"
