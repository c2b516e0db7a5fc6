"""Which licences the modules have that our Go programs are linked from, read from their files."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.processes import require
from tests.stack.go_build import LICENCES, escaped, run, tool_binary

# SPDX ids. Permissive ones, and MPL-2.0, whose copyleft ends at its own files.
ALLOWED = frozenset(
    (
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-2-Clause-Views", "BSD-3-Clause", "CC0-1.0"),
        *("ISC", "MIT", "MIT-0", "MPL-2.0", "UPL-1.0"),
    )
)
# Not even with a reason.
NEVER = re.compile(r"^(AGPL|SSPL|BUSL)")
# Below this share of a file's words a licence text only looks like one that is known.
PERCENT_MIN = 75.0


@dataclass(frozen=True)
class Module:
    """A Go module at a version: what was linked, after replacements."""

    path: str
    version: str

    def __str__(self) -> str:
        return f"{self.path} {self.version}"


@dataclass(frozen=True)
class Licensed:
    """What was found of a module: SPDX ids of its licence files, and files that are not known."""

    module: Module
    ids: frozenset[str]
    unknown: tuple[str, ...] = ()


def refused(found: Iterable[Licensed], excused: dict[str, str]) -> dict[str, str]:
    """Why modules may not be used, by name; ``excused`` has a reason for some that may."""
    reasons: dict[str, str] = {}
    for each in found:
        never = sorted(name for name in each.ids if NEVER.match(name))
        other = sorted(each.ids - ALLOWED)
        if never:
            reasons[str(each.module)] = f"never: {', '.join(never)}"
        elif each.module.path in excused:
            continue
        elif each.unknown:
            reasons[str(each.module)] = f"no licence that is known in {', '.join(each.unknown)}"
        elif other:
            reasons[str(each.module)] = f"not among those allowed: {', '.join(other)}"
        elif not each.ids:
            reasons[str(each.module)] = "no licence file"
    return reasons


def modules_of(program: Path) -> set[Module]:
    """What a Go program says it was linked from, less what is ours or Go's own."""
    listing = run([require("go", "Go's toolchain"), "version", "-m", str(program)], program.parent)
    return linked(listing)


def linked(listing: str) -> set[Module]:
    """The modules of what ``go version -m`` prints; a replacement stands for what it replaces."""
    found: list[Module] = []
    for line in listing.splitlines():
        kind, _, rest = line.strip().partition("\t")
        words = rest.split("\t")
        if kind == "dep":
            found.append(Module(words[0], words[1]))
        elif kind == "=>":
            found[-1] = Module(words[0], words[1])
    return set(found)


def licences_of(modules: Iterable[Module]) -> list[Licensed]:
    """Read the licence files of modules in Go's cache; what is not there any more is fetched."""
    wanted = sorted(modules, key=str)
    cache = _module_cache()
    directories = [cache / f"{escaped(each.path)}@{escaped(each.version)}" for each in wanted]
    gone = [each for each, path in zip(wanted, directories, strict=True) if not path.is_dir()]
    if gone:
        go = require("go", "Go's toolchain")
        run([go, "mod", "download", *(f"{m.path}@{m.version}" for m in gone)], cache)
    said = subprocess.run(
        [str(tool_binary(LICENCES))],
        input="".join(f"{path}\n" for path in directories),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stdout
    return [
        _licensed(module, json.loads(line))
        for module, line in zip(wanted, said.splitlines(), strict=True)
    ]


def _licensed(module: Module, said: dict[str, list[dict[str, object]]]) -> Licensed:
    ids: set[str] = set()
    unknown: list[str] = []
    for file in said["files"]:
        names, percent = file["ids"], file["percent"]
        assert isinstance(names, list)
        assert isinstance(percent, int | float)
        ids.update(names)
        if percent < PERCENT_MIN:
            unknown.append(str(file["name"]))
    return Licensed(module, frozenset(ids), tuple(unknown))


def _module_cache() -> Path:
    cache = Path(run([require("go", "Go's toolchain"), "env", "GOMODCACHE"], Path.cwd()).strip())
    cache.mkdir(parents=True, exist_ok=True)
    return cache
