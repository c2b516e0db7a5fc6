"""What the stack's tests tell beside pass and fail: points of panels, times of alerts, figures."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Report:
    """Lines that are shown when all tests are done."""

    lines: list[str] = field(default_factory=list)

    def line(self, text: str) -> None:
        """Add one."""
        self.lines.append(text)
