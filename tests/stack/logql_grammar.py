"""Reads LogQL with Grafana's own grammar, as no Loki is built here.

The grammar is an npm package. It is installed once, by its lock file, into
``$XDG_CACHE_HOME/otel-celery-memory``; a licence that is not among those we use fails that.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.processes import ComponentError, require
from tests.stack.go_build import made_once
from tests.stack.licences import ALLOWED

SOURCES = Path(__file__).parent / "logql"
INSTALL_TIMEOUT_S = 300.0
PARSE_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Node:
    """A part of a query: what the grammar calls it, its text, and its own parts."""

    name: str
    text: str
    error: bool
    children: tuple[Node, ...]

    def all(self, name: str) -> Iterator[Node]:
        """The parts of this name, at any depth, in order."""
        for child in self.children:
            if child.name == name:
                yield child
            yield from child.all(name)

    def faults(self) -> list[str]:
        """The texts that the grammar has no place for; an empty one where something is missing."""
        ours = [self.text] if self.error else []
        return ours + [fault for child in self.children for fault in child.faults()]


@dataclass(frozen=True)
class Matcher:
    """A condition on a label."""

    label: str
    operator: str
    value: str

    def takes(self, labels: Mapping[str, str]) -> bool:
        """Whether Loki would: a label that is not there is an empty text, patterns are anchored."""
        found = labels.get(self.label, "")
        if "~" in self.operator:
            equal = re.fullmatch(self.value, found) is not None
        else:
            equal = found == self.value
        return equal != self.operator.startswith("!")


@dataclass(frozen=True)
class Read:
    """What a query asks: the conditions of its stream and its filters, and what it counts by."""

    matchers: tuple[Matcher, ...]
    functions: tuple[str, ...]
    by: tuple[str, ...]

    def takes(self, labels: Mapping[str, str]) -> bool:
        """Whether an event with these labels is one of those asked for."""
        return all(each.takes(labels) for each in self.matchers)


def read(tree: Node) -> Read:
    """The meaning of a tree without faults."""
    matchers = [
        Matcher(label.text, operator.text, json.loads(value.text))
        for label, operator, value in (each.children for each in tree.all("Matcher"))
    ]
    functions = [each.text for name in ("VectorOp", "RangeOp") for each in tree.all(name)]
    by = [each.text for labels in tree.all("Labels") for each in labels.children]
    return Read(tuple(matchers), tuple(functions), tuple(by))


def parsed(queries: Sequence[str]) -> list[Node]:
    """The tree of each query, whether the grammar takes it or not."""
    done = subprocess.run(
        [require("node", "nodejs"), "parse.mjs"],
        cwd=grammar(),
        input=json.dumps(queries),
        capture_output=True,
        text=True,
        timeout=PARSE_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise ComponentError(f"the parser of LogQL ended with {done.returncode}:\n{done.stderr}")
    return [_node(each) for each in json.loads(done.stdout)]


def grammar() -> Path:
    """The directory of the parser, installed now unless it is in the cache."""
    sources = sorted(each for each in SOURCES.iterdir() if each.is_file())
    key = hashlib.sha256(b"\0".join(each.read_bytes() for each in sources)).hexdigest()[:16]
    return made_once(f"logql-{key}", lambda place: _install(sources, place), lock="logql.lock")


def refused_licences(directory: Path) -> list[str]:
    """The packages below ``directory`` whose licence is not one of those we use."""
    packages = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((directory / "node_modules").rglob("package.json"))
    ]
    return [
        f"{each['name']} {each['version']}: {each.get('license')}"
        for each in packages
        if "name" in each and each.get("license") not in ALLOWED
    ]


def _install(sources: Sequence[Path], place: Path) -> None:
    npm = require("npm", "npm, beside nodejs")
    with tempfile.TemporaryDirectory(prefix="logql-", dir=place.parent) as directory:
        made = Path(directory) / "made"
        made.mkdir()
        for source in sources:
            shutil.copy(source, made / source.name)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(
            command,
            cwd=made,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise ComponentError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
        if refused := refused_licences(made):
            raise ComponentError(f"licences that we do not use: {', '.join(refused)}")
        # Last, and atomic: the name in the cache never stands for half an installation.
        made.rename(place)


def _node(content: Mapping[str, Any]) -> Node:
    children = tuple(_node(each) for each in content["children"])
    return Node(content["name"], content["text"], content["error"], children)
