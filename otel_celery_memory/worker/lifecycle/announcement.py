"""What a worker says of being measured: a line when it starts, and a section of its statistics.

The line at its end is `tally_text`, beside the records that it counts.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from otel_celery_memory.config_file import config_file
from otel_celery_memory.conventions import VERSION
from otel_celery_memory.destination import (
    LOGS,
    METRICS,
    Destination,
    read_destination,
    warnings_of,
)
from otel_celery_memory.ipc.shared_memory import VARIABLE
from otel_celery_memory.probes.abilities import Ability, read_abilities
from otel_celery_memory.settings import Settings, unknown_variables

logger = logging.getLogger(__name__)

_TOP_TASKS = 3


def announce(settings: Settings, exported_by: str, environ: Mapping[str, str] = os.environ) -> None:
    """Logs that the worker is measured, and what is asked for in vain; it never raises."""
    try:
        abilities = read_abilities(environ)
        file = config_file(environ)
        destinations = _destinations(environ)
        logger.info("%s", started_text(settings, exported_by, destinations, abilities, file))
        warn_of_variables(environ)
    except Exception:
        logger.exception("otel_celery_memory: what is measured cannot be said")


def warn_of_variables(environ: Mapping[str, str] = os.environ) -> None:
    """Logs each exporter and protocol that cannot be had, and variables that are no settings."""
    if not config_file(environ):
        for line in warnings_of(_destinations(environ)):
            logger.warning("otel_celery_memory: %s", line)
    ours = {name: value for name, value in environ.items() if name != VARIABLE}
    for name, nearest in unknown_variables(ours).items():
        hint = f"; did you mean {nearest}?" if nearest else ""
        logger.warning("otel_celery_memory: %s is no setting, and is ignored%s", name, hint)


def _destinations(environ: Mapping[str, str]) -> list[Destination]:
    return [read_destination(signal, environ) for signal in (METRICS, LOGS)]


def started_text(
    settings: Settings,
    exported_by: str,
    destinations: Iterable[Destination],
    abilities: Iterable[Ability],
    file: str = "",
) -> str:
    """One line: version, where telemetry goes, how it is traced, what is missing here and why.

    ``file`` is the one that ``OTEL_CONFIG_FILE`` names. To read it takes much of the SDK, which
    only who exports needs: that process says what is in it.
    """
    missing = "; ".join(f"{each.name} ({each.why_not})" for each in abilities if each.why_not)
    return (
        f"otel_celery_memory: {VERSION} measures the tasks of this worker: "
        + (f"sent as {file} says" if file else _sent(settings, destinations))
        + f" by {exported_by}; {_traced(settings)}"
        + (f"; not measured here: {missing}" if missing else "")
    )


def section(settings: Settings, exported_by: str, view: Mapping[str, Any] | None) -> dict[str, Any]:
    """What ``celery inspect stats`` shows of memory, in bytes; ``view`` is the worker's, if any."""
    found: dict[str, Any] = {"version": VERSION, "exported_by": exported_by}
    if view is None:
        return {**found, "tracing": settings.tracing}
    processes, sites = view["processes"], view["sites"]
    return {
        **found,
        "tracing": view["tracing"]["mode"],
        "tasks_measured": view["measured"],
        "processes": len(processes),
        "rss": sum(each["rss"] or 0 for each in processes),
        "largest_rss": max((each["rss"] or 0 for each in processes), default=0),
        "retained_per_run": {
            each["name"]: each["retained_per_run"]
            for each in view["tasks"][:_TOP_TASKS]
            if each["retained_per_run"]
        },
        "top_site": sites[0]["name"] if sites else None,
        "lost_processes": sum(each["times"] for each in view["losses"]),
    }


def _sent(settings: Settings, destinations: Iterable[Destination]) -> str:
    metrics, events = destinations
    interval = f"every {settings.export_interval:g} s"
    if str(metrics) == str(events):
        return f"sent to {metrics} {interval}"
    return f"metrics are sent to {metrics}, events to {events}, {interval}"


def _traced(settings: Settings) -> str:
    frames = f"{settings.frames} frame{'s' * (settings.frames != 1)}"
    if settings.tracing == "off":
        return "allocations are not traced"
    if settings.tracing == "always":
        return f"allocations are traced always, which is slow ({frames})"
    return (
        f"allocations are traced within {settings.overhead_budget:.2g} of the tasks' CPU time and "
        f"{settings.max_added_latency:g} s a run ({frames})"
    )
