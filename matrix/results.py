"""What came of each combination that was tried, kept as data, and as a table for the site."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from matrix.combinations import CELERY, OTEL, Combination

RESULTS = Path(__file__).with_name("results.json")
PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"


@dataclass(frozen=True, order=True)
class Occasion:
    """When the matrix was run, and on what."""

    date: str
    """Of its beginning, as in 2026-11-21, in UTC."""
    commit: str
    """What was checked out; ``and changes`` where there was more in the tree."""


@dataclass(frozen=True)
class Result:
    """One combination; ``why`` is empty where all is well."""

    python: str
    celery: str
    otel: str
    celery_version: str
    otel_version: str
    outcome: str
    why: str
    date: str
    commit: str

    @classmethod
    def of(
        cls,
        combination: Combination,
        occasion: Occasion,
        *,
        versions: Mapping[str, str],
        outcome: str,
        why: str,
    ) -> Result:
        """Of what was installed; versions are empty where nothing could be."""
        return cls(
            combination.interpreter.name,
            combination.celery,
            combination.otel,
            versions.get("celery", ""),
            versions.get("opentelemetry-sdk", ""),
            outcome,
            why,
            occasion.date,
            occasion.commit,
        )

    @property
    def occasion(self) -> Occasion:
        """When it was tried, and on what."""
        return Occasion(self.date, self.commit)

    @property
    def key(self) -> tuple[tuple[int, ...], int, int]:
        """Its place in the table, and what it replaces."""
        version = tuple(int(part) for part in self.python.split("."))
        return version, OTEL.index(self.otel), CELERY.index(self.celery)


def read(path: Path = RESULTS) -> list[Result]:
    """What is known; nothing where nothing was ever tried."""
    if not path.exists():
        return []
    return [Result(**each) for each in json.loads(path.read_text(encoding="utf-8"))]


def write(results: Iterable[Result], path: Path = RESULTS) -> None:
    """Keep these, in the order of the table."""
    ordered = [asdict(each) for each in sorted(results, key=lambda each: each.key)]
    path.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


def merged(known: Iterable[Result], new: Result) -> list[Result]:
    """What is known, with one result in the place of an older one."""
    return [each for each in known if each.key != new.key] + [new]


def table(results: Sequence[Result]) -> str:
    """A row for each CPython and OpenTelemetry, a column for each Celery; below, when and why."""
    ordered = sorted(results, key=lambda each: each.key)
    cells = {each.key: each for each in ordered}
    lines = ["| CPython | OpenTelemetry |" + "".join(f" Celery {series} |" for series in CELERY)]
    lines.append("| --- | --- |" + " --- |" * len(CELERY))
    for version, level in sorted({each.key[:2] for each in ordered}):
        of_row = [cells.get((version, level, column)) for column in range(len(CELERY))]
        installed = {each.otel_version for each in of_row if each and each.otel_version}
        otel = ", ".join(sorted(installed)) or OTEL[level]
        shown = "".join(f" {each.outcome if each else NOT_RUN} |" for each in of_row)
        lines.append(f"| {'.'.join(map(str, version))} | {otel} |{shown}")
    reasons = [f"- {_name(each)}: {each.why}" for each in ordered if each.why]
    return "\n".join([*lines, "", *_occasions(ordered), *reasons])


def _occasions(ordered: Sequence[Result]) -> Iterator[str]:
    """A line for each date and commit: what was tried then."""
    occasions = sorted({each.occasion for each in ordered})
    for occasion in occasions:
        then = [_name(each) for each in ordered if each.occasion == occasion]
        tried = "; ".join(then) if len(occasions) > 1 else "all that was tried"
        yield f"- {occasion.date}, commit {occasion.commit}: {tried}"


def _name(result: Result) -> str:
    return f"CPython {result.python}, Celery {result.celery}, {result.otel} OpenTelemetry"
