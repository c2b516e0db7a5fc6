"""Memory of Celery workers as OpenTelemetry metrics, span attributes and events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_celery_memory.instrumentor import CeleryMemoryInstrumentor
    from otel_celery_memory.settings import SettingError, Settings

    __version__: str

__all__ = ["CeleryMemoryInstrumentor", "SettingError", "Settings", "__version__"]


def __getattr__(name: str) -> Any:
    # On demand: the reporter imports this package and must not pay for Celery, nor a run of pytest,
    # which has our plugin, for anything.
    if name == "__version__":
        from otel_celery_memory.conventions import VERSION

        return VERSION
    if name == "CeleryMemoryInstrumentor":
        from otel_celery_memory.instrumentor import CeleryMemoryInstrumentor

        return CeleryMemoryInstrumentor
    if name in ("SettingError", "Settings"):
        from otel_celery_memory import settings

        return getattr(settings, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
