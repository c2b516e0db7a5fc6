"""The README's tables, generated from ``conventions.py``, ``settings.py``, rules and the matrix.

``python -m docs.tables`` checks that the README is up to date; ``--write`` updates it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import yaml

from matrix import results
from otel_celery_memory import conventions as c
from otel_celery_memory.settings import ENVIRONMENT_PREFIX, Settings

README = Path(__file__).resolve().parents[1] / "README.md"
ALERTS = README.parent / "grafana" / "alerts" / "alerts.yaml"


def tables() -> dict[str, str]:
    """The text of each generated part by its name."""
    return {
        "task-metrics": _metrics(c.TASK_METRICS),
        "process-metrics": _metrics(c.PROCESS_METRICS),
        "site-metrics": _metrics(c.SITE_METRICS),
        "self-metrics": _metrics(c.SELF_METRICS),
        "events": _table(
            ("event", "severity", "when", "attributes"),
            (
                (f"`{event.name}`", event.severity, event.when, _names(event.attributes))
                for event in c.EVENTS
            ),
        ),
        "alerts": _table(("alert", "severity", "after", "says"), _alerts()),
        "matrix": results.table(results.read()),
        "span-attributes": _table(
            ("attribute", "type", "meaning"),
            ((f"`{item.name}`", item.type, item.meaning) for item in c.SPAN_ATTRIBUTES),
        ),
        "settings": _table(
            ("keyword", "environment", "default", "allowed", "meaning"),
            (
                (
                    f"`{item.name}`",
                    f"`{ENVIRONMENT_PREFIX}{item.name.upper()}`",
                    _default(item.default, item.metadata["unit"]),
                    item.metadata["allowed"],
                    item.metadata["meaning"],
                )
                for item in fields(Settings)
            ),
        ),
    }


def updated(text: str) -> str:
    """A text with every part between its markers replaced.

    Raises `KeyError` where one is missing or strange.
    """
    parts = tables()
    found: list[str] = []

    def replace(match: re.Match[str]) -> str:
        found.append(match[1])
        return f"<!-- {match[1]} -->\n{parts[match[1]]}\n<!-- end -->"

    made = re.sub(r"<!-- (\S+) -->\n(?:(?!<!--).*\n)*<!-- end -->", replace, text)
    if sorted(found) != sorted(parts):
        raise KeyError(f"parts missing or given twice: {sorted({*parts} ^ {*found}) or found}")
    return made


def _metrics(metrics: Sequence[c.Metric]) -> str:
    return _table(
        ("metric", "instrument", "unit", "attributes", "meaning"),
        ((f"`{m.name}`", m.kind, m.unit, _names(m.attributes) or "-", m.meaning) for m in metrics),
    )


def _alerts() -> Iterator[tuple[str, str, str, str]]:
    for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            runbook = rule["annotations"]["runbook_url"]
            says = re.sub(r"{{ \$labels\.(\w+) }}", r"*\1*", rule["annotations"]["summary"])
            after = "at once" if rule["for"] == "0m" else rule["for"]
            severity = rule["labels"]["severity"]
            yield f"[`{rule['alert']}`]({runbook})", severity, after, says


def _names(attributes: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in attributes)


def _default(value: object, unit: str) -> str:
    if value == ():
        return "-"
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{shown} {unit}".strip() if unit == "s" else shown


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: Sequence[str]) -> int:
    """Compares or writes; returns 1 if the README is out of date and was not written."""
    text = README.read_text()
    wanted = updated(text)
    if text == wanted:
        return 0
    if "--write" in arguments:
        README.write_text(wanted)
        return 0
    print("README.md: its tables are out of date: make docs")
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
