"""The package is made of rooms: each stands on lower ones alone, and has one door."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import otel_celery_memory

PACKAGE = Path(otel_celery_memory.__file__).parent
UNIT_TESTS = Path(__file__).parent
OURS = "otel_celery_memory"
FACE = "the package itself"

STANDS_ON = {
    FACE: ("instrumentor", "settings", "conventions"),
    "instrumentor": (
        *("worker.lifecycle", "worker.remote_control", "worker.measuring"),
        *("reporter", "config_file", "destination", "settings"),
    ),
    "cli": (
        *("view", "telemetry", "captures", "probes"),
        *("config_file", "destination", "settings", "conventions"),
    ),
    "testing": ("reporter", "leaks", "probes", "ipc"),
    "view": ("captures", "leaks", "conventions"),
    "worker.lifecycle": (
        *("worker.remote_control", "worker.measuring", "worker"),
        *("probes", "ipc", "circuit_breaker"),
        *("config_file", "destination", "settings", "conventions"),
    ),
    "worker.remote_control": (
        *("worker.measuring", "worker"),
        *("captures", "probes", "ipc", "destination", "settings"),
    ),
    "worker.measuring": (
        *("worker.tracing", "worker"),
        *("probes", "ipc", "circuit_breaker", "settings", "conventions"),
    ),
    "worker.tracing": ("worker", "probes", "ipc", "settings"),
    "worker": ("probes", "ipc"),
    "reporter": (
        *("reporter.state", "telemetry", "leaks", "captures", "probes", "ipc"),
        *("circuit_breaker", "settings", "conventions"),
    ),
    "reporter.state": ("telemetry", "captures", "ipc", "conventions"),
    "telemetry": ("leaks", "captures", "ipc", "config_file", "destination", "conventions"),
    "leaks": (),
    "captures": (),
    "ipc": ("probes",),
    "probes": (),
    "circuit_breaker": (),
    "config_file": (),
    "destination": (),
    "environment_variables": (),
    "settings": (),
    "conventions": (),
}
"""The rooms from the top floor down, each with those that it may import from.

A room is a folder, or a file that lies beside the rooms; a folder inside is a room of its own.
"""


PUBLIC = {"testing": ("LeakError", "NotMeasuredError", "assert_no_leak")}
"""What is at a door for the users of the package."""


@dataclass(frozen=True)
class Import:
    """One module imported by another, at its top or when something is called."""

    module: str
    name: str
    lazy: bool


def module_name(path: Path) -> str:
    """A file's module below the package: ``worker.record_writer``; empty for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
FOLDERS = {name for name, path in FILES.items() if path.name == "__init__.py"} - {""}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def imports_of(module: str) -> list[Import]:
    """All imports of a file, but those for type checkers."""
    found: list[Import] = []
    _collect(TREES[module], module, False, found)
    return found


def _collect(node: ast.AST, module: str, lazy: bool, found: list[Import]) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            found += [Import(module, alias.name, lazy) for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{module} imports relatively"
            assert child.module is not None
            found += [Import(module, f"{child.module}.{a.name}", lazy) for a in child.names]
        inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        _collect(child, module, lazy or inside, found)


IMPORTS = [each for module in FILES for each in imports_of(module)]


def our_module(name: str) -> str | None:
    """The module of ours that an imported name is, or is in; ``None`` for what is not ours."""
    if f"{name}.".startswith(f"{OURS}."):
        parts = name.split(".")[1:]
        for count in range(len(parts), -1, -1):
            if (module := ".".join(parts[:count])) in FILES:
                return module
    return None


WITHIN = [(each.module, to) for each in IMPORTS if (to := our_module(each.name)) is not None]
"""Who imports whom, of our modules."""


def around(module: str) -> list[str]:
    """The folders that a module is in, the outermost first; a folder is in itself."""
    parts = module.split(".")
    starts = [".".join(parts[: count + 1]) for count in range(len(parts))]
    return [start for start in starts if start in FOLDERS]


def room_of(module: str) -> str:
    """The innermost folder that a module is in, or the module."""
    return (around(module) or [module or FACE])[-1]


def door_of(folder: str) -> list[str]:
    """What a folder's ``__all__`` names."""
    for node in TREES[folder].body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def ways_in(module: str, to: str) -> Iterator[tuple[str, str]]:
    """Each folder that an import enters from outside, and what it asks for there."""
    for folder in around(to):
        if folder not in around(module) and to != folder:
            yield folder, to[len(folder) + 1 :].split(".", maxsplit=1)[0]


def importing(prefix: str, *, lazy: bool | None = None) -> set[str]:
    """Modules that import something of this name."""
    return {
        each.module
        for each in IMPORTS
        if f"{each.name}.".startswith(f"{prefix}.") and (lazy is None or each.lazy is lazy)
    }


def rooms_importing(*prefixes: str) -> set[str]:
    return {room_of(module) for prefix in prefixes for module in importing(prefix)}


def reached_from(module: str) -> set[str]:
    """All modules of ours that are loaded when this one is."""
    reached, ahead = set(), {module}
    while ahead:
        reached |= ahead
        ahead = {to for start, to in WITHIN if start in ahead} - reached
    return reached


@pytest.mark.parametrize("room", STANDS_ON)
def test_each_room_imports_from_the_rooms_that_it_stands_on_and_from_no_other(room: str) -> None:
    asked = {room_of(to) for module, to in WITHIN if room_of(module) == room} - {room}
    assert asked == set(STANDS_ON[room])


def test_imports_go_down_only() -> None:
    floors = list(STANDS_ON)
    up = [
        (room, other)
        for room, below in STANDS_ON.items()
        for other in below
        if floors.index(other) <= floors.index(room)
    ]
    assert up == []


def test_every_file_belongs_to_a_room_that_is_listed() -> None:
    assert {room_of(module) for module in FILES} == set(STANDS_ON)


def test_no_modules_import_one_another_in_a_circle() -> None:
    below = {module: reached_from(module) - {module} for module in FILES}
    assert [(one, two) for one in FILES for two in below[one] if one in below[two]] == []


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_what_is_imported_from_outside_is_what_the_door_names(folder: str) -> None:
    asked = {name for pair in WITHIN for entered, name in ways_in(*pair) if entered == folder}
    # What users, tools and the documentation import, and nobody of the package.
    assert asked == set(door_of(folder)) - {"main", "parser"} - set(PUBLIC.get(folder, ()))


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_the_paragraph_at_the_door_names_each_way_in(folder: str) -> None:
    paragraph = ast.get_docstring(TREES[folder]) or ""
    assert [name for name in door_of(folder) if f"`{name}`" not in paragraph] == []


def test_nobody_imports_what_is_private_to_a_file() -> None:
    private = [
        f"{each.module} imports {each.name}"
        for each in IMPORTS
        if each.name.startswith(OURS) and each.name.rpartition(".")[2].startswith("_")
    ]
    assert private == []


def test_the_unit_tests_lie_in_the_same_rooms() -> None:
    folders = {path.parent for path in UNIT_TESTS.rglob("test_*.py")} - {UNIT_TESTS}
    assert {".".join(path.relative_to(UNIT_TESTS).parts) for path in folders} == (
        FOLDERS - {"telemetry"}
    )


def test_only_telemetry_imports_the_sdk_at_its_top() -> None:
    assert {room_of(module) for module in importing("opentelemetry.sdk", lazy=False)} == {
        "telemetry"
    }


def test_in_process_delivery_alone_asks_for_the_sdk_when_it_is_called() -> None:
    assert importing("opentelemetry.sdk", lazy=True) <= {"reporter.in_process"}


def test_exporters_are_imported_by_nobody_at_the_top() -> None:
    assert importing("opentelemetry.exporter", lazy=False) == set()


def test_celery_is_known_to_what_runs_tasks_the_instrumentor_and_the_view_alone() -> None:
    users = rooms_importing("celery", "billiard", "kombu")
    assert {room.split(".", maxsplit=1)[0] for room in users} <= {
        "worker",
        "instrumentor",
        "reporter",
        "view",
        "testing",
    }


def test_the_reporter_s_process_loads_neither_celery_nor_the_worker() -> None:
    loaded = reached_from("reporter.__main__")
    assert loaded & (importing("celery") | importing("billiard") | importing("kombu")) == set()
    assert {module for module in loaded if module.startswith("worker")} == set()


def test_probes_know_nothing_of_opentelemetry() -> None:
    assert "probes" not in rooms_importing("opentelemetry")


def test_nobody_reads_pickles_or_marshalled_bytes() -> None:
    banned = ("pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle")
    assert {module for name in banned for module in importing(name)} == set()


def test_only_snapshots_that_a_user_trusts_are_loaded_which_are_pickles() -> None:
    loading = {
        module
        for module, path in FILES.items()
        if "Snapshot.load" in path.read_text(encoding="utf-8")
    }
    assert loading == {"captures.format"}


@pytest.mark.parametrize("module", FILES)
def test_every_file_says_in_its_first_line_what_it_is_for(module: str) -> None:
    text = ast.get_docstring(TREES[module])
    assert text
    assert text.splitlines()[0].endswith(".")


@pytest.mark.parametrize("module", FILES)
def test_every_file_has_annotations_that_cost_nothing(module: str) -> None:
    tree = TREES[module]
    if any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree)):
        assert "from __future__ import annotations" in map(ast.unparse, tree.body[:2])
