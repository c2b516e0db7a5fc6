"""Queries of events in Loki: which stream, which event, which of its attributes."""

from __future__ import annotations

from grafana.names import TASK, label
from otel_celery_memory import conventions as c

STREAMS = '{service_instance_id=~"$instance"}'
"""`service.instance.id` is one of the resource attributes that Loki makes a stream's label of."""

EVENT = "event_name"
"""Where the Collector puts the name of an event; Loki writes dots as underscores."""

SITE = label(c.SITE_NAME)


def of_event(*names: str, task: bool = False) -> str:
    """The events of these names, of the chosen workers, and tasks where ``task``."""
    wanted = "|".join(name.replace(".", r"\\.") for name in names)
    chosen = f' | {TASK}=~"$task"' if task else ""
    return f'{STREAMS} | {EVENT}=~"{wanted}"{chosen}'


def latest_of_site(attribute: str) -> str:
    """The last value of a number that allocation site events carry, by site."""
    events = of_event(c.ALLOCATION_SITE.name, task=True)
    value = f"{events} | unwrap {label(attribute)} [$__auto]"
    return f"max by ({SITE}) (last_over_time({value}) by ({SITE}, {TASK}))"
