"""Imports go one way, as ARCHITECTURE.md says; files are small and say what they are for."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

import otel_celery_memory

PACKAGE = Path(otel_celery_memory.__file__).parent
OURS = "otel_celery_memory"
MODULES = sorted(PACKAGE.rglob("*.py"))

BASE = (
    *("records", "settings", "conventions", "version", "wire", "frames"),
    *("orders", "ordered", "page", "dropped", "journal", "shared_memory", "told"),
    *("status", "rendezvous", "containment"),
)
"""What everybody may import: data, its form on the wire, the pages, and where they meet."""
MAY_IMPORT = {
    "records": (),
    "settings": ("setting_values",),
    "setting_values": (),
    "conventions": (),
    "version": (),
    "wire": ("records",),
    "frames": ("records", "wire"),
    "orders": (),
    "ordered": ("orders",),
    "page": ("records", "orders", "ordered", "told", "dropped", "shared_memory"),
    "shared_memory": (),
    "told": (),
    "dropped": (),
    "journal": ("shared_memory",),
    "status": ("shared_memory",),
    "rendezvous": (),
    "containment": (),
    "probes": ("records", "settings", "conventions", "probes"),
    "leaks": ("records", "settings", "conventions", "leaks"),
    "captures": ("records", "settings", "conventions", "version", "captures"),
    "worker": (*BASE, "probes", "captures", "worker"),
    "telemetry": ("records", "conventions", "version", "telemetry"),
    "reporter": (*BASE, "probes", "leaks", "telemetry", "captures", "reporter"),
}
"""By the first part of a module's name below the package; what is not here joins all."""

LONG_FILES = {
    "conventions.py": "one table of every metric, attribute and event",
    "records.py": "one record of every kind, side by side",
    "reporter/emitter.py": "the one place where records become telemetry",
    "worker/recorder.py": "what fails in one part of a task's recording is contained here for all",
}
LONGEST_LINES = 200


@dataclass(frozen=True)
class Import:
    """One module imported by another, at its top or when something is called."""

    module: str
    name: str
    lazy: bool


def module_name(path: Path) -> str:
    """A file's module below the package: ``worker.meter``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(path: Path) -> list[Import]:
    """All imports of a file, but those for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: list[Import] = []
    _collect(tree, module_name(path), False, found)
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


IMPORTS = [each for path in MODULES for each in imports_of(path)]


def below_package(name: str) -> str | None:
    """The first part below our package of an imported name; ``None`` for what is not ours."""
    parts = name.split(".")
    return parts[1] if parts[0] == OURS and len(parts) > 1 else None


def breaking(group: str) -> list[str]:
    """Imports of ours that a part of the package must not have."""
    return [
        f"{each.module} imports {each.name}"
        for each in IMPORTS
        if each.module.split(".")[0] == group
        and (part := below_package(each.name)) is not None
        and part not in MAY_IMPORT[group]
    ]


def importing(prefix: str, *, lazy: bool | None = None) -> set[str]:
    """Modules that import something of this name."""
    return {
        each.module
        for each in IMPORTS
        if f"{each.name}.".startswith(f"{prefix}.") and (lazy is None or each.lazy is lazy)
    }


def part_of(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


@pytest.mark.parametrize("group", MAY_IMPORT)
def test_each_part_imports_of_ours_only_what_lies_below_it(group: str) -> None:
    assert breaking(group) == []


def test_only_telemetry_imports_the_sdk_at_its_top() -> None:
    assert {part_of(module) for module in importing("opentelemetry.sdk", lazy=False)} == {
        "telemetry"
    }


def test_in_process_delivery_alone_asks_for_the_sdk_when_it_is_called() -> None:
    assert importing("opentelemetry.sdk", lazy=True) <= {"inprocess"}


def test_exporters_are_imported_by_nobody_at_the_top() -> None:
    assert importing("opentelemetry.exporter", lazy=False) == set()


def test_celery_is_known_to_the_worker_side_and_the_instrumentor_alone() -> None:
    users = importing("celery") | importing("billiard") | importing("kombu")
    assert {part_of(module) for module in users} <= {
        "worker",
        "wiring",
        "inprocess",
        "cli",
    }


def test_probes_know_nothing_of_opentelemetry() -> None:
    assert "probes" not in {part_of(module) for module in importing("opentelemetry")}


def test_nobody_reads_pickles_or_marshalled_bytes() -> None:
    banned = ("pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle")
    assert {module for name in banned for module in importing(name)} == set()


def test_only_snapshots_that_a_user_trusts_are_loaded_which_are_pickles() -> None:
    loading = {
        module_name(path) for path in MODULES if "Snapshot.load" in path.read_text(encoding="utf-8")
    }
    assert loading == {"captures.snapshot"}


def test_the_parts_that_are_listed_are_there_or_to_come() -> None:
    groups = {part_of(module_name(path)) for path in MODULES} - {""}
    to_come = {"leaks"}
    joins_all = {"instrumentor", "wiring", "inprocess", "cli"}
    assert groups - joins_all <= set(MAY_IMPORT)
    assert set(MAY_IMPORT) - to_come <= groups


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_every_file_says_in_its_first_line_what_it_is_for(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text
    assert text.splitlines()[0].endswith(".")


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_every_file_has_annotations_that_cost_nothing(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree)):
        assert "from __future__ import annotations" in map(ast.unparse, tree.body[:2])


def test_no_file_is_longer_than_two_hundred_lines_without_a_reason() -> None:
    long = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST_LINES
    }
    assert long == set(LONG_FILES)
