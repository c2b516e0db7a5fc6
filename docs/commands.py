"""The tables of commands in the documentation, from the parsers that parse them.

`of_program` is the program ``otel-celery-memory``, `of_celery` the commands of ``celery memory``,
and `of_remote_control` those of Celery's remote control.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import click
from celery.worker.control import Panel

from otel_celery_memory.cli import parser
from otel_celery_memory.worker.remote_control import command_line

Row = tuple[str, ...]


def of_program() -> Iterator[Row]:
    """Each command, argument and option of the program."""
    for name, command in _subcommands(parser()).items():
        yield f"**`{name}`**", "", _first_sentence(command.description or "")
        for action in command._actions:
            if not isinstance(action, argparse._HelpAction):
                yield f"`{name}`", f"`{_shown(action)}`", _expanded(action)


def of_celery() -> Iterator[Row]:
    """Each command of ``celery memory``, with its own arguments and options."""
    group = command_line.memory
    for name in sorted(group.commands):
        command = group.commands[name]
        own = [f"`{_of_click(each)}`" for each in command.params if _is_own(each)]
        yield f"`celery memory {name}`", ", ".join(own), _first_sentence(command.help or "")


def of_remote_control() -> Iterator[Row]:
    """Each of our commands of ``celery inspect`` and ``celery control``."""
    for name, found in sorted(Panel.meta.items()):
        if name.startswith("memory"):
            signature = f"`{found.signature}`" if found.signature else ""
            yield f"`celery {found.type} {name}`", signature, _first_sentence(found.help)


def _subcommands(of: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise LookupError("the program has no commands")


def _shown(action: argparse.Action) -> str:
    """``-A, --app APP``, or the argument's name."""
    if not action.option_strings:
        return str(action.metavar or action.dest).upper()
    value = ""
    if action.nargs != 0:
        choices = "|".join(map(str, action.choices)) if action.choices else ""
        value = f" {action.metavar or choices or action.dest.upper()}"
    return ", ".join(action.option_strings) + value


def _expanded(action: argparse.Action) -> str:
    text = (action.help or "") % {**vars(action), "prog": "otel-celery-memory"}
    return text[:1].upper() + text[1:]


def _of_click(parameter: click.Parameter) -> str:
    metavar = parameter.metavar
    if isinstance(parameter, click.Argument):
        choices = getattr(parameter.type, "choices", ())
        return metavar or "|".join(map(str, choices))
    return f"{', '.join(parameter.opts)} {metavar}"


def _is_own(parameter: click.Parameter) -> bool:
    """Whether it is not one of those that all remote commands have."""
    return isinstance(parameter, click.Argument) or getattr(parameter, "help_group", None) is None


def _first_sentence(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())
