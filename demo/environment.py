"""The environment of the demo and its worker: the user's, less what would redirect them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""What `demo` is imported from, and what the paths of sites are shown relative to."""

SERVICE_NAME = "otel-celery-memory-demo"

_NEVER = ("CELERY_", "OTEL_CELERY_MEMORY_", "DJANGO_SETTINGS_MODULE", "FORKED_BY_MULTIPROCESSING")
"""Celery lets ``CELERY_BROKER_URL`` win over an application's broker: the demo's tasks would go
to the user's. Settings and a Django project of the user's do not belong here either."""

_NEVER_WITH_ENDPOINT = (
    "OTEL_SDK_DISABLED",
    "OTEL_METRICS_EXPORTER",
    "OTEL_LOGS_EXPORTER",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
)
"""Variables that would override ``--endpoint``; headers, certificates and protocol are kept."""


def demo_environment(
    environ: Mapping[str, str], directory: Path, endpoint: str, *, embedded: bool
) -> dict[str, str]:
    """The environment for telemetry to `endpoint` and a broker in `directory`."""
    unwanted = (*_NEVER, *(("OTEL_",) if embedded else _NEVER_WITH_ENDPOINT))
    kept = {name: value for name, value in environ.items() if not name.startswith(unwanted)}
    past_proxies = ",".join(filter(None, (_no_proxy(environ), "127.0.0.1,localhost")))
    path = os.pathsep.join(filter(None, (str(ROOT), environ.get("PYTHONPATH"))))
    return {
        **kept,
        "OTEL_SERVICE_NAME": SERVICE_NAME,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "PYTHONPATH": path,
        # Both spellings are read; the lower-case one takes precedence.
        "NO_PROXY": past_proxies,
        "no_proxy": past_proxies,
        "TMPDIR": str(directory),
        "DEMO_DIRECTORY": str(directory),
    }


def _no_proxy(environ: Mapping[str, str]) -> str:
    return environ.get("no_proxy") or environ.get("NO_PROXY") or ""
