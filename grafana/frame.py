"""Common to all dashboards: variables, links to one another, time range, read-only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as model

from grafana.layout import places
from grafana.names import SLOT, TASK, series
from grafana.panels import PROMETHEUS, Panel
from grafana.stores import EventStore
from otel_celery_memory import conventions as c

TAG = "celery-memory"
JOB = 'job=~"$job"'
INSTANCE = f'{JOB}, instance=~"$instance"'
OF_TASK = f'{INSTANCE}, {TASK}=~"$task"'
OF_SLOT = f'{INSTANCE}, {SLOT}=~"$slot"'


@dataclass(frozen=True)
class Variable:
    """A choice on a page: values of a label; all of them by default."""

    name: str
    label: str
    query: str


_MEMORY, _MEASURED = series(c.MEMORY), series(c.MEASURED)
JOBS = Variable("job", "Job", f"label_values({_MEMORY}, job)")
INSTANCES = Variable("instance", "Instance", f"label_values({_MEMORY}{{{JOB}}}, instance)")
TASKS = Variable("task", "Task", f"label_values({_MEASURED}{{{INSTANCE}}}, {TASK})")
SLOTS = Variable("slot", "Process", f"label_values({_MEMORY}{{{INSTANCE}}}, {SLOT})")


def page(
    store: EventStore,
    uid: str,
    title: str,
    description: str,
    panels: Sequence[Panel],
    extra: Sequence[Variable] = (),
) -> build.Dashboard:
    """A dashboard with the common variables and links, its own ``extra`` ones, and its panels."""
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
    made.with_variable(_source("prometheus_datasource", "Prometheus", "prometheus"))
    made.with_variable(_source(store.variable, store.title, store.plugin))
    for variable in (JOBS, INSTANCES, *extra):
        made.with_variable(_choice(variable, store.everything))
    sizes = [(panel.width, panel.height) for panel in panels]
    for panel, place in zip(panels, places(sizes), strict=True):
        grid = model.GridPos(h=place.height, w=place.width, x=place.x, y=place.y)
        made.with_panel(panel.builder.grid_pos(grid))
    return made


def link_to(uid: str, variable: str, value: str) -> str:
    """The address of another dashboard with one variable set and the same time range."""
    source = "${prometheus_datasource:queryparam}"
    return f"/d/{uid}?var-{variable}={value}&${{__url_time_range}}&{source}"


def _choice(variable: Variable, everything: str) -> build.QueryVariable:
    return (
        build.QueryVariable(variable.name)
        .label(variable.label)
        .datasource(PROMETHEUS)
        .query(variable.query)
        .multi(True)
        .include_all(True)
        .all_value(everything)
        .current(model.VariableOption(text="All", value="$__all", selected=True))
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )


def _source(name: str, title: str, plugin: str) -> build.DatasourceVariable:
    return build.DatasourceVariable(name).label(f"{title} data source").type(plugin)
