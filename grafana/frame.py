"""What the dashboards have in common: variables, links to one another, time, who may edit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as model

from grafana.names import SLOT, TASK, series
from grafana.panels import PROMETHEUS
from otel_celery_memory import conventions as c

FLEET, WORKER, TASK_PAGE = "celery-memory-fleet", "celery-memory-worker", "celery-memory-task"
"""Uids: what links and alerts point to."""

TAG = "celery-memory"
JOB = 'job=~"$job"'
INSTANCE = f'{JOB}, instance=~"$instance"'
OF_TASK = f'{INSTANCE}, {TASK}=~"$task"'
OF_SLOT = f'{INSTANCE}, {SLOT}=~"$slot"'
EVERYTHING = ".+"


def page(
    uid: str, title: str, description: str, extra: Sequence[build.QueryVariable] = ()
) -> build.Dashboard:
    """An empty dashboard with the variables and links that all have, and those of its own."""
    memory = series(c.MEMORY)
    variables = (
        _source("prometheus"),
        _source("loki"),
        query_variable("job", "Job", f"label_values({memory}, job)"),
        query_variable("instance", "Instance", f"label_values({memory}{{{JOB}}}, instance)"),
        *extra,
    )
    made = (
        build.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .time("now-3h", "now")
        .refresh("1m")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(
            build.DashboardLink("Celery memory")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
    )
    for variable in variables:
        made.with_variable(variable)
    return made


def filled(made: build.Dashboard, *panels: Any) -> build.Dashboard:
    """A dashboard with its panels, numbered from the top left: alerts name one by number."""
    for number, panel in enumerate(panels, 1):
        made.with_panel(panel.id(number))
    return made


def query_variable(name: str, label: str, query: str) -> build.QueryVariable:
    """A variable whose values are a label's; all of them unless somebody chooses."""
    return (
        build.QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query(query)
        .multi(True)
        .include_all(True)
        .all_value(EVERYTHING)
        .current(model.VariableOption(text="All", value="$__all", selected=True))
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )


def task_variable() -> build.QueryVariable:
    """Names of tasks."""
    measured = series(c.MEASURED)
    return query_variable("task", "Task", f"label_values({measured}{{{INSTANCE}}}, {TASK})")


def slot_variable() -> build.QueryVariable:
    """Places in the pool."""
    memory = series(c.MEMORY)
    return query_variable("slot", "Process", f"label_values({memory}{{{INSTANCE}}}, {SLOT})")


def link_to(uid: str, variable: str, value: str) -> str:
    """The address of another dashboard with one of its variables set, and the same time."""
    source = "${prometheus_datasource:queryparam}"
    return f"/d/{uid}?var-{variable}={value}&${{__url_time_range}}&{source}"


def _source(kind: str) -> build.DatasourceVariable:
    return (
        build.DatasourceVariable(f"{kind}_datasource")
        .label(f"{kind.title()} data source")
        .type(kind)
    )
