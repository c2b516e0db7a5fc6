"""The site's tables, generated from ``conventions.py``, ``settings.py``, parsers, rules, figures.

Each stands between ``<!-- name -->`` and ``<!-- end -->`` in a page of ``docs/site``.
``python -m docs.tables`` checks that the pages are up to date; ``--write`` updates them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import yaml

from benchmarks import page
from docs import commands
from grafana.rules import RUNBOOKS
from matrix import results
from otel_celery_memory import conventions as c
from otel_celery_memory.settings import ENVIRONMENT_PREFIX, Settings

_CONDITION = r"{{ if [^}]*}}(.*?)(?:{{ else }}.*?)?{{ end }}"
"""Part of an alert's text: what it says where the condition holds is shown."""
ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "docs" / "site"
ALERTS = ROOT / "grafana" / "alerts" / "alerts.yaml"


def tables() -> dict[str, str]:
    """The text of each generated part by its name."""
    return {
        "task-metrics": _metrics(c.TASK_METRICS),
        "process-metrics": _metrics(c.PROCESS_METRICS),
        "site-metrics": _metrics(c.SITE_METRICS),
        "leak-metrics": _metrics(c.LEAK_METRICS),
        "self-metrics": _metrics(c.SELF_METRICS),
        "events": _table(
            ("event, and severity", "when", "attributes"),
            (
                (f"`{event.name}`<br>{event.severities}", event.when, _names(event.attributes))
                for event in c.EVENTS
            ),
        ),
        "commands": _table(("command", "option", "meaning"), commands.of_program()),
        "celery-commands": _table(("command", "arguments", "meaning"), commands.of_celery()),
        "remote-commands": _table(
            ("command", "arguments", "meaning"), commands.of_remote_control()
        ),
        "alerts": _table(("alert", "severity", "after", "says"), _alerts()),
        "matrix": results.table(results.read()),
        **page.tables(),
        "span-attributes": _table(
            ("attribute", "type", "meaning"),
            ((f"`{item.name}`", item.type, item.meaning) for item in c.SPAN_ATTRIBUTES),
        ),
        "settings": _table(
            ("keyword, and variable", "default", "allowed", "meaning"),
            (
                (
                    f"`{item.name}`<br>`{ENVIRONMENT_PREFIX}{item.name.upper()}`",
                    _default(item.default, item.metadata["unit"]),
                    item.metadata["allowed"],
                    item.metadata["meaning"],
                )
                for item in fields(Settings)
            ),
        ),
    }


def pages() -> dict[Path, str]:
    """The text of each page of the site."""
    return {path: path.read_text(encoding="utf-8") for path in sorted(SITE.rglob("*.md"))}


def updated(texts: Mapping[Path, str]) -> dict[Path, str]:
    """Pages with every part between its markers replaced.

    Raises `KeyError` where a part is in no page, in two, or unknown.
    """
    parts = tables()
    found: list[str] = []

    def replace(match: re.Match[str]) -> str:
        found.append(match[1])
        return f"<!-- {match[1]} -->\n{parts[match[1]]}\n<!-- end -->"

    made = {
        path: re.sub(r"<!-- (\S+) -->\n(?:(?!<!--).*\n)*<!-- end -->", replace, text)
        for path, text in texts.items()
    }
    if sorted(found) != sorted(parts):
        raise KeyError(f"parts missing or given twice: {sorted({*parts} ^ {*found}) or found}")
    return made


def _metrics(metrics: Sequence[c.Metric]) -> str:
    return _table(
        ("metric, instrument and unit", "attributes", "meaning"),
        (
            (f"`{m.name}`<br>{m.kind}, {m.unit}", _names(m.attributes) or "-", m.meaning)
            for m in metrics
        ),
    )


def _alerts() -> Iterator[tuple[str, str, str, str]]:
    for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            page = rule["annotations"]["runbook_url"].removeprefix(f"{RUNBOOKS}/")
            says = re.sub(_CONDITION, r"\1", rule["annotations"]["summary"])
            says = re.sub(r"{{ \$labels\.(\w+) }}", r"*\1*", says)
            after = "at once" if rule["for"] == "0m" else rule["for"]
            severity = rule["labels"]["severity"]
            yield f"[`{rule['alert']}`](runbooks/{page})", severity, after, says


def _names(attributes: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in attributes)


def _default(value: object, unit: str) -> str:
    if value == ():
        return "-"
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{shown} {unit}".strip() if unit == "s" else shown


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def main(arguments: Sequence[str]) -> int:
    """Compares or writes; returns 1 if a page is out of date and was not written."""
    texts = pages()
    stale = {path: text for path, text in updated(texts).items() if text != texts[path]}
    for path, text in stale.items():
        if "--write" in arguments:
            path.write_text(text, encoding="utf-8")
        else:
            print(f"{path.relative_to(ROOT)}: its tables are out of date: make docs")
    return 1 if stale and "--write" not in arguments else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
