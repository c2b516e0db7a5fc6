"""A rule as a frozen record, from which the files of Prometheus and Grafana are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from grafana.ids import FLEET, TASK_PAGE, WORKER, PanelId

PROJECT = "https://github.com/otel-celery-memory/otel-celery-memory"
"""Where the project is; a test holds that pyproject.toml says so too."""
RUNBOOKS_PATH = "docs/site/runbooks"
"""Where runbooks are in the project."""
RUNBOOKS = f"{PROJECT}/blob/main/{RUNBOOKS_PATH}"
"""Where a person opens them. If you serve them elsewhere, pass ``--runbooks URL`` when writing the
files, with ``{alert}`` for the name where the address does not end with ``/name.md``."""

GRAFANA = ""
"""Where Grafana is, for the links to dashboards: relative, unless ``--grafana URL`` is passed."""

_PAGES: Mapping[str, tuple[str, ...]] = {
    FLEET: ("job",),
    WORKER: ("job", "instance"),
    TASK_PAGE: ("job", "celery_task_name"),
}
_VARIABLES = {"celery_task_name": "task"}


@dataclass(frozen=True)
class Recording:
    """A recorded series; ``name`` is level:metric:operation."""

    name: str
    expression: str


@dataclass(frozen=True)
class Alert:
    """A condition, how long it must hold, and the texts for the person who is paged.

    ``panel`` is the panel to open first. ``narrowed``: the page shows only the alert's job; not so
    for Collectors, whose job is no worker's.
    """

    name: str
    severity: Literal["critical", "warning"]
    expression: str
    for_: str
    summary: str
    description: str
    panel: PanelId
    detail: str = ""
    """Added to the description by a query in Prometheus; Grafana's templates cannot query."""
    keep_firing_for: str = ""
    narrowed: bool = True

    def runbook(self, base: str = RUNBOOKS) -> str:
        """The address of its runbook."""
        if "{alert}" in base:
            return base.replace("{alert}", self.name)
        return f"{base.rstrip('/')}/{self.name}.md"

    def page(self, base: str = GRAFANA) -> str:
        """The dashboard to open, with its variables set from the alert's labels."""
        address = f"{base.rstrip('/')}/d/{self.panel.dashboard}"
        if not self.narrowed:
            return address
        variables = "&".join(
            f"var-{_VARIABLES.get(each, each)}={{{{ $labels.{each} }}}}"
            for each in _PAGES[self.panel.dashboard]
        )
        return f"{address}?{variables}"


@dataclass(frozen=True)
class Group:
    """Rules that are evaluated one after the other, every ``interval``."""

    name: str
    interval: str
    rules: tuple[Recording | Alert, ...]
