"""`CeleryMemoryInstrumentor`: what a user calls; its arguments are checked and wired."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from dataclasses import fields
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_celery_memory.delivery import Wiring
from otel_celery_memory.settings import SettingError, Settings

logger = logging.getLogger(__name__)

_PROVIDERS = ("meter_provider", "logger_provider", "tracer_provider")


class CeleryMemoryInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Measures the memory of Celery tasks and tells it over OTLP.

    ``instrument()`` belongs in the module that makes the Celery app. It starts nothing there:
    the web application imports that module too. A worker that starts is measured, by default
    with a reporter process beside it. Keywords are the settings of `Settings`; with
    ``meter_provider``, ``logger_provider`` or ``tracer_provider`` the telemetry goes to these,
    in this process, and eager tasks are measured too.

    Raises `SettingError` for a setting that cannot be used, but under auto-instrumentation.
    """

    # BaseInstrumentor is a singleton whose __init__ runs at every construction: class attributes.
    _wiring: Wiring | None = None
    _strict = True

    def instrumentation_dependencies(self) -> Collection[str]:
        return ("celery >= 5.3, < 6",)

    def instrument(self, **kwargs: Any) -> None:
        # Auto-instrumentation is the one caller that skips this check; nobody could catch there.
        self._strict = not kwargs.get("skip_dep_check", False)
        super().instrument(**kwargs)

    def _instrument(self, **kwargs: Any) -> None:
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return
        settings = Settings.load(kwargs, os.environ, strict=self._strict)
        for unknown in kwargs.keys() - {item.name for item in fields(Settings)} - {*_PROVIDERS}:
            logger.warning("otel_celery_memory: %s is no setting, it is ignored", unknown)
        providers = {name: kwargs.get(name) for name in _PROVIDERS}
        for name, provider in providers.items():
            method = f"get_{name.removesuffix('_provider')}"
            if provider is not None and not hasattr(provider, method):
                raise SettingError(name, provider, f"it must have a method {method}()")
        self._wiring = Wiring(settings, providers)
        self._wiring.connect()

    def _uninstrument(self, **kwargs: Any) -> None:
        if self._wiring is not None:
            self._wiring.disconnect()
            self._wiring = None
