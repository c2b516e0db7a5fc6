"""What the stack's tests tell beside pass and fail: points of panels, times of alerts, figures."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.stack.panels import Answer


@dataclass
class Report:
    """Lines that are shown when all tests are done."""

    lines: list[str] = field(default_factory=list)
    answers: dict[tuple[str, str, str], list[Answer]] = field(default_factory=dict)
    """By dashboard, panel and reference: what docs/pictures.py draws."""

    def line(self, text: str) -> None:
        """Add one."""
        self.lines.append(text)

    def save(self, path: Path) -> None:
        """Write the answers as JSON."""
        content = [
            {"dashboard": page, "panel": panel, "ref": ref, "answer": [asdict(a) for a in answer]}
            for (page, panel, ref), answer in self.answers.items()
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
