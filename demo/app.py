"""The Celery app of the demo: of its three tasks one leaks, one spikes and one is healthy."""

# Celery has no types, so neither have its decorators.
# mypy: allow-untyped-decorators

from __future__ import annotations

import os

from celery import Celery

from otel_celery_memory import CeleryMemoryInstrumentor

app = Celery("demo")
app.config_from_object(os.environ.get("DEMO_CONFIG", "demo.broker"))

# All that an application adds. The times are short as a demo is; the rest are defaults.
CeleryMemoryInstrumentor().instrument(sites_interval=5, export_interval=1, warm_up=0)

_entries_by_refresh: list[list[str]] = []


@app.task(name="feeds.refresh")
def refresh(feed: str) -> int:
    """Leaks: keeps the entries of every refresh, to compare them with the next one's some day."""
    _entries_by_refresh.append([f"{feed}/{n}".ljust(1_000) for n in range(500)])  # the leak
    return len(_entries_by_refresh[-1])


@app.task(name="reports.render")
def render(title: str) -> int:
    """Spikes: a document of 40 MiB and its encoded copy, both freed."""
    document = f"<h1>{title}</h1>" + "<tr><td>42</td></tr>" * 2_000_000
    return len(document.encode())


@app.task(name="mail.send")
def send(address: str) -> int:
    """Is healthy: what it allocates it frees."""
    lines = [f"Dear {address}, this is line {n}." for n in range(100)]
    return len("\n".join(lines))
