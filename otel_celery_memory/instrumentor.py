"""`CeleryMemoryInstrumentor`, which a user calls, and the choice of delivery.

Where and how `instrument` is called decides the delivery. The normal one is a reporter beside the
worker. Delivery is in process if the caller passes providers, if a child is instrumented by itself,
or if no reporter can be started.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from billiard.process import current_process
from celery import signals
from celery.utils.nodenames import default_nodename
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_celery_memory.config_file import ConfigFileError, config_file, own_options
from otel_celery_memory.destination import is_disabled
from otel_celery_memory.settings import SettingError, Settings
from otel_celery_memory.worker.lifecycle.announcement import warn_of_variables
from otel_celery_memory.worker.lifecycle.embedded import EmbeddedLifecycle, join_worker
from otel_celery_memory.worker.lifecycle.prefork import (
    InProcessLifecycle,
    WorkerLifecycle,
    refuse,
)
from otel_celery_memory.worker.lifecycle.supervisor import can_start_again
from otel_celery_memory.worker.measuring.signals import connect, disconnect, signal_being_sent
from otel_celery_memory.worker.measuring.spans import TaskSpans
from otel_celery_memory.worker.remote_control.requests import OwnRequests

if TYPE_CHECKING:
    from otel_celery_memory.reporter.in_process import InProcessSink

logger = logging.getLogger(__name__)

_PROVIDERS = ("meter_provider", "logger_provider", "tracer_provider")


class Wiring:
    """Connects a process's signals as the settings say, and disconnects them."""

    def __init__(
        self, settings: Settings, providers: dict[str, Any], error: SettingError | None = None
    ) -> None:
        """With an ``error`` no worker starts."""
        self._settings = settings
        self._error = error
        self._providers = providers
        self._spans = TaskSpans(providers["tracer_provider"])
        self._worker = WorkerLifecycle(settings, self._spans)
        self._without_reporter = InProcessLifecycle(settings)
        self._embedded: EmbeddedLifecycle | None = None
        self._has_reporter = settings.delivery == "reporter"
        self._saw_worker = False
        self._node_name = ""

    def connect(self) -> None:
        """Measures at once with given providers or in a child; otherwise waits for a worker."""
        if any(self._providers.values()):
            self._embed(self._to_providers())
            return
        sent, sender = signal_being_sent() or (None, None)
        if sent is signals.worker_process_init:
            self._warn_of_call_in("worker_process_init")
            warn_of_variables()
            self._node_name = sender if isinstance(sender, str) else ""
            self._embed(self._to_default())
            return
        if sent is signals.worker_ready:
            logger.warning(
                "otel_celery_memory: instrument() was called when the worker had started already: "
                "it is not measured; call it in the module that makes the Celery app"
            )
        connect(signals.worker_init, self._worker_init)
        connect(signals.worker_process_init, self._process_init)
        connect(signals.worker_ready, self._worker_ready)
        if sent is signals.worker_init:
            # Celery has already chosen the receivers of the signal that it is sending.
            self._worker_init(sender)

    def disconnect(self) -> None:
        """Leaves no receiver, step, descriptor or process behind."""
        disconnect(signals.worker_init, self._worker_init)
        disconnect(signals.worker_process_init, self._process_init)
        disconnect(signals.worker_ready, self._worker_ready)
        self._worker.stop_tracing()
        self._worker.detach()
        self._without_reporter.detach()
        if self._embedded is not None:
            self._embedded.stop_tracing()
            self._embedded.end()
            self._embedded = None

    def _worker_init(self, sender: Any = None, **_: object) -> None:
        if sender is None:
            return
        if self._error is not None:
            refuse(sender, self._error)
            return
        self._saw_worker = True
        self._node_name = sender.hostname
        if not self._has_reporter:
            self._without_reporter.attach(sender)
            # Import it once, before the fork: children must be up within four seconds.
            importlib.import_module("otel_celery_memory.reporter.in_process")
            return
        try:
            if not can_start_again():
                raise OSError("this interpreter cannot be started again")
            self._worker.attach(sender)
        except OSError as error:
            self._has_reporter = False
            logger.warning("otel_celery_memory: no reporter (%s), delivery is in process", error)
            self._without_reporter.attach(sender)

    def _process_init(self, sender: Any = None, **_: object) -> None:
        """Called in a child of the pool, or in the solo pool's only process."""
        if isinstance(sender, str):
            self._node_name = sender
        if self._worker.attached or self._embedded is not None:
            return
        # A spawned child has imported us anew; any other child has inherited `_saw_worker`.
        if self._saw_worker or os.environ.get("FORKED_BY_MULTIPROCESSING"):
            self._embedded = join_worker(self._settings, self._spans)
            if self._embedded is None:
                self._embed(self._to_default())

    def _worker_ready(self, sender: Any = None, **_: object) -> None:
        """Measures the main process, where threads, gevent and eventlet run tasks."""
        from celery.concurrency.prefork import TaskPool as PreforkPool

        pool = getattr(sender, "pool", None)
        if self._worker.attached or self._embedded or isinstance(pool, PreforkPool):
            return
        self._embed(self._to_default())

    def _embed(self, sink: InProcessSink) -> None:
        self._embedded = EmbeddedLifecycle(
            sink,
            sink.end,
            self._settings,
            self._spans,
            sink.page,
            OwnRequests(self._settings, sink.page, sink.view),
            own_work=sink.own_work,
        )
        self._embedded.begin()

    # Only a process that exports by itself imports the SDK.

    def _to_providers(self) -> InProcessSink:
        """Delivers to the caller's providers."""
        from otel_celery_memory.reporter.in_process import InProcessSink, given_destination

        destination = given_destination(
            self._providers["meter_provider"], self._providers["logger_provider"]
        )
        return InProcessSink(destination, self._settings)

    def _to_default(self) -> InProcessSink:
        """Delivers to the global SDK providers or, if there are none, to a pipeline of our own."""
        from otel_celery_memory.reporter.in_process import InProcessSink, best_destination

        # A metric stream has one writer: each child that exports by itself is its own instance.
        slot = getattr(current_process(), "index", None)
        node_name = self._node_name or default_nodename(None)
        instance = node_name if slot is None else f"{node_name}/{slot}"
        destination = best_destination(instance, self._settings.export_interval)
        return InProcessSink(destination, self._settings)

    @staticmethod
    def _warn_of_call_in(signal_name: str) -> None:
        logger.warning(
            "otel_celery_memory: instrument() was called in %s, so every child measures and "
            "exports by itself, and loses what it has not exported if it is killed; call it in "
            "the module that makes the Celery app to have one reporter for the worker",
            signal_name,
        )


class CeleryMemoryInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Measures the memory of Celery tasks and exports it over OTLP.

    Call ``instrument()`` in the module that makes the Celery app. It starts nothing there, because
    the web application imports that module too. When a worker starts, it is measured, by default
    with a reporter process beside it. The keywords are those of `Settings`. With
    ``meter_provider``, ``logger_provider`` or ``tracer_provider`` this process delivers the
    telemetry to these providers, and eager tasks are measured too.

    If a setting cannot be used, a worker does not start and says why. Any other process logs it and
    goes on with the default, and under auto-instrumentation a worker does so too.
    """

    # Class attributes: BaseInstrumentor is a singleton, its __init__ runs at every construction.
    _wiring: Wiring | None = None
    _strict = True

    def instrumentation_dependencies(self) -> Collection[str]:
        return ("celery >= 5.3, < 6",)

    def instrument(self, **kwargs: Any) -> None:
        # Only auto-instrumentation skips this check, and nobody can catch an error there.
        self._strict = not kwargs.get("skip_dep_check", False)
        super().instrument(**kwargs)

    def _instrument(self, **kwargs: Any) -> None:
        declared = self._declared(kwargs)
        if is_disabled(os.environ) or declared is None:
            return
        file = config_file(os.environ)
        settings, errors = Settings.load_usable(kwargs, os.environ, declared, file)
        refuses = self._strict and errors
        for error in errors:
            used = "used here, and no worker starts" if refuses else "used"
            logger.error("%s; the default %r is %s", error, error.default, used)
        named = kwargs.keys() | declared.keys()
        for unknown in named - {item.name for item in fields(Settings)} - {*_PROVIDERS}:
            logger.warning("otel_celery_memory: %s is not a setting and is ignored", unknown)
        providers = {name: kwargs.get(name) for name in _PROVIDERS}
        for name, provider in providers.items():
            method = f"get_{name.removesuffix('_provider')}"
            if provider is not None and not hasattr(provider, method):
                raise SettingError(name, provider, f"it must have a method {method}()")
        self._wiring = Wiring(settings, providers, errors[0] if refuses else None)
        self._wiring.connect()

    def _declared(self, kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """Our options in the file of ``OTEL_CONFIG_FILE``; ``None`` if it switches us off."""
        try:
            declared = own_options(os.environ)
        except ConfigFileError as error:
            # Who opens the pipeline says it; with providers of the caller nobody does.
            level = logging.WARNING if any(map(kwargs.get, _PROVIDERS)) else logging.DEBUG
            logger.log(level, "otel_celery_memory: %s", error)
            return {}
        if declared is None:
            path = config_file(os.environ)
            logger.warning("otel_celery_memory: %s switches it off: nothing is measured", path)
        return declared

    def _uninstrument(self, **kwargs: Any) -> None:
        if self._wiring is not None:
            self._wiring.disconnect()
            self._wiring = None
