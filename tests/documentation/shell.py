"""Checks shell commands without running them: by the parser of the program that each one names.

Our own programs, Celery's and make's targets are asked themselves. Of programs that need a cluster
or a container engine, and of those of the system, the options that the documentation may use are
listed here, as their manuals have them.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import click
from celery import Celery
from celery.bin.base import CLIContext
from celery.bin.celery import celery as celery_group
from celery.bin.control import _compile_arguments
from celery.worker.control import Panel

from otel_celery_memory.cli import parser
from otel_celery_memory.settings import unknown_variables
from otel_celery_memory.worker.remote_control import commands
from tests.documentation.blocks import ROOT

PLACES = (ROOT, ROOT / "examples" / "find_a_leak")
"""Where files that a command names may be."""
ALWAYS_SET = {"PWD", "HOME", "PATH"}
KUBECTL: Mapping[str, Collection[str]] = {
    "get": {"-n", "-o"},
    "describe": {"-n"},
    "logs": {"-n", "--since", "--tail", "--previous", "-c"},
    "exec": {"-n", "-it", "-c"},
    "top": {"-n", "--containers"},
    "set": {"-n", "--limits", "--list"},
}
DOCKER_COMPOSE = {"up": {"-d"}, "down": set(), "logs": set(), "config": set()}
SYSTEM: Mapping[str, Collection[str]] = {
    "cd": set(),
    "df": {"-h"},
    "dmesg": {"--ctime"},
    "git": {"apply"},
    "grep": {"-i", "-E"},
    "kill": {"-URG"},
    "ls": {"-l"},
    "pgrep": {"-o", "-f", "-a", "-P"},
    "ps": {"-eo", "--sort"},
    "redis-server": set(),
    "tee": set(),
    "timeout": set(),
}
BY_TASK = ("memory_capture", "memory_census")
_OPERATORS = {"|", "||", "&&", ";", "&", "(", ")"}
_ASSIGNED = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:{(\w+)}|(\w+))")
_INNER = re.compile(r"\$\(([^()]+)\)")
_COMMENT = re.compile(r"(?:^|\s)#\s.*$")
_OPTION = re.compile(r"^(--?[A-Za-z][\w-]*)")
Check = Callable[[Sequence[str]], Iterator[str]]


def script_of(text: str) -> str:
    """The commands of a block: all of it, or what follows a ``$`` where there are such lines."""
    lines = text.splitlines()
    if any(line.startswith("$ ") for line in lines):
        return "\n".join(line[2:] for line in lines if line.startswith(("$ ", "> ")))
    return text


def problems(text: str, variables: set[str] | None = None) -> Iterator[str]:
    """What is wrong with the commands of a block.

    `variables` are those that earlier blocks have set; those of this one are added. With ``None``
    it is not checked whether a variable was set before it is used.
    """
    script = script_of(text)
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    if done.returncode:
        yield done.stderr.strip()
        return
    for line in script.replace("\\\n", " ").splitlines():
        for inner in _INNER.findall(line):
            yield from problems(inner, variables)
        if variables is not None:
            unquoted = _COMMENT.sub("", re.sub(r"'[^']*'", "", line))
            for found in _VARIABLE.finditer(unquoted):
                name = found[1] or found[2]
                if name not in variables | ALWAYS_SET:
                    yield f"${name} is not set before it is used"
        for words in _commands(line):
            yield from _of_command(words, variables)


def _commands(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(_INNER.sub("inner", line), posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words: list[str] = []
    for word in lexer:
        if word in _OPERATORS:
            yield words
            words = []
        elif word not in (">", "<", ">>"):
            words.append(word)
    yield words


def _of_command(words: Sequence[str], variables: set[str] | None) -> Iterator[str]:
    rest = list(words)
    exported = rest[:1] == ["export"]
    if exported:
        rest.pop(0)
    assigned = {}
    while rest and (found := _ASSIGNED.fullmatch(rest[0])):
        assigned[found[1]] = found[2]
        rest.pop(0)
    for name in assigned:
        yield from unknown_variable(name)
    if exported and variables is not None:
        variables |= {*assigned}
    if not rest:
        return
    check = PROGRAMS.get(rest[0])
    if check is None:
        yield f"nobody knows how to check {rest[0]!r}"
        return
    yield from check(rest[1:])


def unknown_variable(name: str) -> Iterator[str]:
    """Says so if nothing reads this environment variable."""
    if name.startswith("OTEL_CELERY_MEMORY_"):
        for wrong, near in unknown_variables({name: ""}).items():
            yield f"{wrong} is no setting; {near or 'nothing'} is near it"
    elif name.startswith("OTEL_"):
        if name not in _variables_of_opentelemetry():
            yield f"{name} is no variable of OpenTelemetry"
    elif name not in NAMES_OF_EXAMPLES and not _is_read_somewhere(name):
        yield f"nothing reads {name}"


NAMES_OF_EXAMPLES = {"APP", "WORKER", "NAMESPACE", "POD", "MALLOC_ARENA_MAX"}
"""Variables that commands of the runbooks use, and one that the C library reads."""


@cache
def _variables_of_opentelemetry() -> frozenset[str]:
    found: set[str] = set()
    for module in (
        "opentelemetry.environment_variables",
        "opentelemetry.sdk.environment_variables",
        "opentelemetry.instrumentation.environment_variables",
    ):
        found |= {name for name in vars(importlib.import_module(module)) if name.isupper()}
    return frozenset(found)


@cache
def _is_read_somewhere(name: str) -> bool:
    """Whether a configuration or a program of the repository has it."""
    places = ("collector-config", "deploy", "demo", "examples", "grafana/provisioning")
    files = [*ROOT.glob("compose*.yaml"), *(f for p in places for f in (ROOT / p).rglob("*.*"))]
    word = re.compile(rf"\b{name}\b")
    return any(
        word.search(file.read_text(encoding="utf-8"))
        for file in files
        if file.suffix in (".yaml", ".yml", ".py")
    )


def _program(arguments: Sequence[str]) -> Iterator[str]:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parser().parse_args(list(arguments))
    except SystemExit as ended:
        if ended.code:
            yield f"otel-celery-memory {' '.join(arguments)}: {said.getvalue().strip()}"


def _celery(arguments: Sequence[str]) -> Iterator[str]:
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in ("-A", "--app"):
            rest.pop(0)
        elif not option.startswith("--app="):
            yield f"celery has no option {option}"
            return
    if not rest:
        return
    # As Celery's command line is loaded, whatever this process has imported first.
    commands.accept(inspect=("memory",), control=(*BY_TASK, "memory_tracing"))
    commands.accept_task_option(BY_TASK)
    name = rest.pop(0)
    command: Any = celery_group.commands.get(name)
    if command is None:
        yield f"celery has no command {name}"
        return
    context = CLIContext(
        app=Celery("documentation", set_as_current=False), no_color=True, workdir=None
    )
    try:
        while isinstance(command, click.Group) and rest:
            inner = rest.pop(0)
            if inner not in command.commands:
                yield f"celery {name} has no command {inner}"
                return
            command = command.commands[inner]
        parsed = command.make_context(name, rest, obj=context)
        if name in ("inspect", "control"):
            action = parsed.params.get("action") or parsed.params.get("command")
            if action in Panel.meta:
                _compile_arguments(action, list(parsed.args))
            else:
                yield f"celery {name} has no {action}"
    except click.ClickException as error:
        yield f"celery {' '.join(arguments)}: {error.format_message()}"
    except click.exceptions.Exit:
        return


def _instrumented(arguments: Sequence[str]) -> Iterator[str]:
    if arguments and arguments[0] != "--help":
        yield from _of_command(arguments, None)


def _make(arguments: Sequence[str]) -> Iterator[str]:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for word in arguments:
        if not _ASSIGNED.fullmatch(word) and word not in targets:
            yield f"make has no target {word}"


def _pip(arguments: Sequence[str]) -> Iterator[str]:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = project.partition("[project.optional-dependencies]")[2].partition("\n\n[")[0]
    known = re.findall(r"^(\w+) = \[", extras, re.MULTILINE)
    if arguments[0] != "install":
        yield f"pip {arguments[0]} is not known here"
    for word in arguments[1:]:
        found = re.fullmatch(r"(\.|otel-celery-memory)(?:\[([\w,-]+)\])?", word)
        if found is None:
            if f'"{word}>=' not in project:
                yield f"pip install {word}: neither this project nor what it needs"
        elif found[2]:
            yield from (f"no extra {each}" for each in found[2].split(",") if each not in known)


def _python(arguments: Sequence[str]) -> Iterator[str]:
    if arguments[0] == "-c":
        for node in ast.walk(ast.parse(arguments[1])):
            if isinstance(node, ast.ImportFrom) and not _is_module(node.module or ""):
                yield f"there is no module {node.module}"
    elif arguments[0] == "-m":
        yield from _module(arguments[1], arguments[2:])
    elif not any((place / arguments[0]).is_file() for place in PLACES):
        yield f"there is no {arguments[0]}"


def _module(name: str, options: Sequence[str]) -> Iterator[str]:
    if name == "venv":
        return
    if not _is_module(name):
        yield f"there is no module {name}"
    elif wanted := [found[1] for word in options if (found := _OPTION.match(word))]:
        known = _help_of(name)
        yield from (f"python -m {name} has no {each}" for each in wanted if each not in known)


def _is_module(name: str) -> bool:
    path = name.replace(".", "/")
    return any(
        (place / f"{path}.py").is_file() or (place / path / "__init__.py").is_file()
        for place in PLACES
    )


@cache
def _help_of(module: str) -> str:
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def _kubectl(arguments: Sequence[str]) -> Iterator[str]:
    if not arguments or arguments[0] not in KUBECTL:
        yield f"kubectl {' '.join(arguments[:1])} is not in the list"
        return
    ours, _, inside = " ".join(map(shlex.quote, arguments[1:])).partition(" -- ")
    yield from _options(f"kubectl {arguments[0]}", shlex.split(ours), KUBECTL[arguments[0]])
    if inside:
        yield from _of_command(shlex.split(inside), None)


def _docker(arguments: Sequence[str]) -> Iterator[str]:
    rest = list(arguments)
    if rest[:1] != ["compose"]:
        yield from _options("docker run", rest[1:], {"--init"})
        return
    rest.pop(0)
    while rest[:1] == ["-f"]:
        if not (ROOT / rest[1]).is_file():
            yield f"there is no {rest[1]}"
        rest = rest[2:]
    if not rest or rest[0] not in DOCKER_COMPOSE:
        yield f"docker compose {' '.join(rest)} is not in the list"
    else:
        yield from _options(f"docker compose {rest[0]}", rest[1:], DOCKER_COMPOSE[rest[0]])


def _collector(arguments: Sequence[str]) -> Iterator[str]:
    built = (ROOT / "collector-config" / "builder.yaml").read_text("utf-8")
    if "name: otelcol-celery-memory" not in built or arguments[:1] != ["validate"]:
        yield "the Collector has no such command"
    yield from _options("otelcol-celery-memory", arguments[1:], {"--config", "--feature-gates"})


def _options(program: str, words: Sequence[str], known: Collection[str]) -> Iterator[str]:
    for word in words:
        found = _OPTION.match(word)
        if found and found[1] not in known:
            yield f"{program} {found[1]} is not in the list"


def _system(program: str) -> Check:
    def check(arguments: Sequence[str]) -> Iterator[str]:
        if program == "cd" and not any((place / arguments[0]).is_dir() for place in PLACES):
            yield f"there is no directory {arguments[0]}"
        yield from _options(program, arguments, SYSTEM[program])

    return check


PROGRAMS: Mapping[str, Check] = {
    "otel-celery-memory": _program,
    "celery": _celery,
    "opentelemetry-instrument": _instrumented,
    "make": _make,
    "pip": _pip,
    "python": _python,
    "kubectl": _kubectl,
    "docker": _docker,
    "otelcol-celery-memory": _collector,
    **{program: _system(program) for program in SYSTEM},
}
