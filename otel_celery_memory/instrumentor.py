"""`CeleryMemoryInstrumentor`, which a user calls, and which way a process is measured then.

That depends on where `instrument` was called: with a reporter beside the worker, or in process: for
providers of the caller's, in a child that was instrumented by itself, and where no reporter can be
started.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Collection
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from billiard.process import current_process
from celery import signals
from celery.utils.nodenames import default_nodename
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_celery_memory.settings import SettingError, Settings
from otel_celery_memory.worker.lifecycle.embedded import EmbeddedLifecycle, join_worker
from otel_celery_memory.worker.lifecycle.prefork import WorkerLifecycle
from otel_celery_memory.worker.lifecycle.supervisor import can_start_again
from otel_celery_memory.worker.measuring.signals import connect, disconnect, signal_being_sent
from otel_celery_memory.worker.measuring.spans import TaskSpans
from otel_celery_memory.worker.remote_control.requests import OwnRequests

if TYPE_CHECKING:
    from otel_celery_memory.reporter.in_process import InProcessSink

logger = logging.getLogger(__name__)

_PROVIDERS = ("meter_provider", "logger_provider", "tracer_provider")


class Wiring:
    """What `instrument` connected, and how to undo it."""

    def __init__(self, settings: Settings, providers: dict[str, Any]) -> None:
        self._settings = settings
        self._providers = providers
        self._spans = TaskSpans(providers["tracer_provider"])
        self._worker = WorkerLifecycle(settings, self._spans)
        self._embedded: EmbeddedLifecycle | None = None
        self._has_reporter = settings.delivery == "reporter"
        self._saw_worker = False
        self._node_name = ""

    def connect(self) -> None:
        """Begin at once where the caller says so or it is late, else wait for a worker."""
        if any(self._providers.values()):
            self._embed(self._given())
            return
        sent, sender = signal_being_sent() or (None, None)
        if sent is signals.worker_process_init:
            self._warn_of_place("worker_process_init")
            self._node_name = sender if isinstance(sender, str) else ""
            self._embed(self._best())
            return
        if sent is signals.worker_ready:
            logger.warning(
                "otel_celery_memory: instrument() was called when the worker was up already: "
                "it is not measured; call it in the module that makes the Celery app"
            )
        connect(signals.worker_init, self._worker_init)
        connect(signals.worker_process_init, self._process_init)
        connect(signals.worker_ready, self._worker_ready)
        if sent is signals.worker_init:
            # The receivers of this very sending are chosen already.
            self._worker_init(sender)

    def disconnect(self) -> None:
        """Leave no receiver, step, descriptor or process."""
        disconnect(signals.worker_init, self._worker_init)
        disconnect(signals.worker_process_init, self._process_init)
        disconnect(signals.worker_ready, self._worker_ready)
        self._worker.stop_tracing()
        self._worker.detach()
        if self._embedded is not None:
            self._embedded.stop_tracing()
            self._embedded.end()
            self._embedded = None

    def _worker_init(self, sender: Any = None, **_: object) -> None:
        if sender is None:
            return
        self._saw_worker = True
        self._node_name = sender.hostname
        if not self._has_reporter:
            # Once, before the fork: children have four seconds to come up.
            importlib.import_module("otel_celery_memory.reporter.in_process")
            return
        try:
            if not can_start_again():
                raise OSError("this interpreter cannot be started again")
            self._worker.attach(sender)
        except OSError as error:
            self._has_reporter = False
            logger.warning("otel_celery_memory: no reporter (%s), delivery is in process", error)

    def _process_init(self, sender: Any = None, **_: object) -> None:
        """In a child of the pool, or in the solo pool's only process."""
        if isinstance(sender, str):
            self._node_name = sender
        if self._worker.attached or self._embedded is not None:
            return
        # A spawned child has imported us by itself; any other knows of its worker's start.
        if self._saw_worker or os.environ.get("FORKED_BY_MULTIPROCESSING"):
            self._embedded = join_worker(self._settings, self._spans)
            if self._embedded is None:
                self._embed(self._best())

    def _worker_ready(self, sender: Any = None, **_: object) -> None:
        """Threads, gevent and eventlet run tasks in the main process."""
        from celery.concurrency.prefork import TaskPool as PreforkPool

        pool = getattr(sender, "pool", None)
        if self._worker.attached or self._embedded or isinstance(pool, PreforkPool):
            return
        self._embed(self._best())

    def _embed(self, sink: InProcessSink) -> None:
        self._embedded = EmbeddedLifecycle(
            sink,
            sink.end,
            self._settings,
            self._spans,
            sink.page,
            OwnRequests(self._settings, sink.page, sink.view),
        )
        self._embedded.begin()

    # The SDK is imported where this process needs it itself, not in every one that imports us.

    def _given(self) -> InProcessSink:
        """To the caller's providers."""
        from otel_celery_memory.reporter.in_process import InProcessSink, given_destination

        given = given_destination(
            self._providers["meter_provider"], self._providers["logger_provider"]
        )
        return InProcessSink(given, self._settings)

    def _best(self) -> InProcessSink:
        """To the global SDK providers, else to a pipeline of our own."""
        from otel_celery_memory.reporter.in_process import InProcessSink, best_destination

        # One writer a stream: children that export by themselves are instances of their own.
        slot = getattr(current_process(), "index", None)
        node_name = self._node_name or default_nodename(None)
        instance = node_name if slot is None else f"{node_name}/{slot}"
        best = best_destination(instance, self._settings.export_interval)
        return InProcessSink(best, self._settings)

    @staticmethod
    def _warn_of_place(signal_name: str) -> None:
        logger.warning(
            "otel_celery_memory: instrument() was called in %s, so every child measures and "
            "exports by itself and what it has not sent is lost when it is killed; call it in "
            "the module that makes the Celery app to have one reporter for the worker",
            signal_name,
        )


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
