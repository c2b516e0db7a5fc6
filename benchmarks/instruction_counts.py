"""Counts of instructions, kept in a file and compared: pure functions of what was counted.

Two things are counted of each case, both for one run of a task. *Instructions* are those of the
processor, by callgrind: they stand for what it costs, and belong to one build of the interpreter.
*Bytecodes* are those that the interpreter executes, for each function of Python: callgrind sees one
C function that interprets them all, so these say which function grew. They are the compiler's, and
the same for each build of a minor version.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

LIMIT = 0.03
"""More than this share of what was counted before is too much."""
NAMED = 5
"""Functions that are named of a case that grew."""
KEPT = 40
"""C functions of which the count is kept, the greatest ones."""

Counts = Mapping[str, float]
"""What each function took for one run."""


@dataclass(frozen=True)
class Case:
    """What one run of a task takes in one case, in all and by function."""

    instructions: float
    bytecodes: float
    c_functions: Counts = field(default_factory=dict)
    python_functions: Counts = field(default_factory=dict)


@dataclass(frozen=True)
class Count:
    """What was counted with one interpreter: on what build of it, with which versions, when."""

    python: str
    build: str
    date: str
    versions: Mapping[str, str]
    cases: Mapping[str, Case]

    @property
    def minor(self) -> str:
        """Such as ``3.11``."""
        return ".".join(self.python.split(".")[:2])


@dataclass(frozen=True)
class Comparison:
    """What a comparison says, line by line, whether there was one, and whether it is too much."""

    lines: tuple[str, ...]
    compared: bool
    grew: bool


def from_json(kept: Iterable[Mapping[str, Any]]) -> tuple[Count, ...]:
    """The counts of a file."""
    return tuple(
        Count(
            each["python"],
            each["build"],
            each["date"],
            each["versions"],
            {name: Case(**case) for name, case in each["cases"].items()},
        )
        for each in kept
    )


def to_json(counts: Iterable[Count]) -> list[dict[str, Any]]:
    """For a file, in the order of versions."""
    ordered = sorted(counts, key=lambda each: ([*map(int, each.python.split("."))], each.build))
    return [asdict(each) for each in ordered]


def replaced(kept: Iterable[Count], new: Count) -> tuple[Count, ...]:
    """With the new count in the place of the one of the same interpreter, if there is one."""
    others = (each for each in kept if (each.python, each.build) != (new.python, new.build))
    return (*others, new)


def compared(kept: Iterable[Count], new: Count) -> Comparison:
    """What grew since the counts that are kept.

    Instructions are compared with those of the same version and build. Where there are none, that
    is said, and bytecodes are compared with those of the same minor version.
    """
    kept = tuple(kept)
    same = [each for each in kept if (each.python, each.build) == (new.python, new.build)]
    if same:
        return _of_lines(_differences(same[0], new, "instructions"), compared=True)
    there = ", ".join(f"CPython {each.python} ({each.build})" for each in kept) or "nothing"
    lines = [
        f"instructions cannot be compared: this is CPython {new.python} ({new.build}); "
        f"there are counts of {there}"
    ]
    minor = [each for each in kept if each.minor == new.minor]
    if not minor:
        lines.append(f"bytecodes cannot be compared either: no count is of CPython {new.minor}")
        return Comparison(tuple(lines), compared=False, grew=False)
    lines.append(f"bytecodes are compared with those of CPython {minor[-1].python}:")
    told = _of_lines(_differences(minor[-1], new, "bytecodes"), compared=True)
    return Comparison((*lines, *told.lines), told.compared, told.grew)


def _of_lines(told: Iterable[tuple[str, bool]], compared: bool) -> Comparison:
    lines = tuple(told)
    return Comparison(
        tuple(line for line, _ in lines), compared, any(too_much for _, too_much in lines)
    )


def _differences(before: Count, after: Count, what: str) -> Iterator[tuple[str, bool]]:
    """A line for each case, and whether what it says is too much."""
    for name in before.cases:
        if name not in after.cases:
            yield f"{name}: was not counted", False
            continue
        old, new = before.cases[name], after.cases[name]
        was, now = float(getattr(old, what)), float(getattr(new, what))
        share = now / was - 1
        line = f"{name}: {was:,.0f} {what} a run, now {now:,.0f} ({share:+.2%})"
        if share <= LIMIT:
            yield line, False
            if share < -LIMIT:
                yield "  it takes less: keep the new counts with --write", False
            continue
        yield f"{line}: more than {LIMIT:.0%} more", True
        yield from ((f"  {told}", True) for told in _blamed(old, new, what))
        if what == "instructions" and before.versions != after.versions:
            yield f"  counted with {_listed(before.versions)}, now {_listed(after.versions)}", True
    for name in after.cases.keys() - before.cases.keys():
        yield f"{name}: nothing to compare with, as it is new", False


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _blamed(old: Case, new: Case, what: str) -> Iterator[str]:
    grown = list(grown_functions(old.python_functions, new.python_functions))
    if grown:
        for function, more in grown[:NAMED]:
            yield f"{function} executes {more:+,.1f} bytecodes a run"
    else:
        yield "no function of Python executes more bytecodes: it is in C, or in what it is given"
    if what == "instructions":
        for function, more in list(grown_functions(old.c_functions, new.c_functions))[:NAMED]:
            yield f"{function} (C) takes {more:+,.0f} instructions a run"


def grown_functions(before: Counts, after: Counts) -> Iterator[tuple[str, float]]:
    """The functions that take more, and by how much, the one that grew most first."""
    more = {name: count - before.get(name, 0.0) for name, count in after.items()}
    # A function of which less than half a step is executed in each run is noise, or nothing new.
    ordered = sorted(more.items(), key=lambda item: (-item[1], item[0]))
    yield from ((name, by) for name, by in ordered if by >= 0.5)


def greatest(counts: Counts, kept: int = KEPT) -> dict[str, float]:
    """Those that take most, with what the others take together as ``others``."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    found = {name: round(count, 1) for name, count in ordered[:kept]}
    rest = sum(count for _, count in ordered[kept:])
    return {**found, "others": round(rest, 1)} if ordered[kept:] else found


_FUNCTION = re.compile(r"(c?)fn=(?:\((\d+)\))?\s?(.*)")
_COST = re.compile(r"[+\-*]?\d*\s+(\d+)$")


def of_callgrind(lines: Iterable[str]) -> dict[str, int]:
    """Instructions by C function, without those of what it called, of a file that callgrind wrote.

    Of the format's parts only those are read that callgrind writes when asked for one event and no
    subpositions but lines. A line after ``calls=`` is the cost of the called function.
    """
    names: dict[str, str] = {}
    counts: dict[str, int] = {}
    function, is_call = "", False
    for line in lines:
        text = line.rstrip()
        if found := _FUNCTION.fullmatch(text):
            called, number, name = found.groups()
            if number and name:
                names[number] = name
            if not called:
                function, is_call = name or names[number], False
        elif text.startswith("calls="):
            is_call = True
        elif found := _COST.fullmatch(text):
            if not is_call:
                counts[function] = counts.get(function, 0) + int(found[1])
            is_call = False
    return counts
