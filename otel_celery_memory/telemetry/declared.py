"""SDK providers as the file of ``OTEL_CONFIG_FILE`` declares them.

OpenTelemetry's own factories make what the file says: views, limits, resource, exporters. Readers
and processors are ours, as those of the variables are, so that what an endpoint has not
acknowledged is sent again. That is why two factories are called that are no part of what
``opentelemetry-configuration`` promises; if a release has them no more, the file cannot be used,
which is said.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from otel_celery_memory.config_file import load, unusable
from otel_celery_memory.destination import LOGS, METRICS
from otel_celery_memory.telemetry.console import ConsoleEvents, ConsoleMetrics
from otel_celery_memory.telemetry.providers import (
    Parts,
    Providers,
    own_attributes,
    wants_delta,
    wants_exponential,
)

logger = logging.getLogger(__name__)
# Where telemetry goes is said by whoever reads the file. The reporter logs warnings alone.
logger.setLevel(logging.INFO)

_PACKAGE = "opentelemetry.configuration"
_AT_ONCE_MS = 100.0
"""How long an event of a ``simple`` processor waits at most: no exporter may delay who emits it."""
_NOT_READ = ("tls", "encoding")
"""What OpenTelemetry's factories do not read of an OTLP exporter (release 0.66)."""


def from_file(path: str, node_name: str, parts: Parts) -> Providers:
    """The providers that the file declares. Raises `ConfigFileError`, and leaves nothing open."""
    model = load(path)
    try:
        providers = _providers(model, node_name, parts)
    except Exception as error:
        # Somebody else's: an exporter that is not installed, a port that is taken.
        raise unusable(path, error) from error
    for line in _not_read(model):
        logger.warning("otel_celery_memory: %s: %s", path, line)
    metrics, events = (_where(_exporters_of(model, of)) for of in ("meter", "logger"))
    logger.info(
        "otel_celery_memory: as %s says, metrics are sent to %s, events to %s",
        *(path, metrics, events),
    )
    return providers


@dataclass(frozen=True)
class DeclaredExporter:
    """An exporter of the file, where it sends to, and whether it is of ``METRICS`` or ``LOGS``."""

    signal: str
    place: str
    exporter: Any


def exporters_to_try(path: str) -> list[DeclaredExporter]:
    """The exporters that push, made as for a worker. Raises `ConfigFileError`."""
    model = load(path)
    try:
        found = [
            *((METRICS, each.exporter, made) for each, made in _metric_exporters(model)),
            *(
                (LOGS, (each.batch or each.simple).exporter, made)
                for each, made in _log_exporters(model)
            ),
        ]
    except Exception as error:
        raise unusable(path, error) from error
    return [DeclaredExporter(signal, _where(_named(spec)), made) for signal, spec, made in found]


def _metric_exporters(model: Any) -> list[tuple[Any, Any]]:
    """Each reader that pushes, as declared, and its exporter."""
    of_metrics = importlib.import_module(f"{_PACKAGE}._meter_provider")
    readers = model.meter_provider.readers if model.meter_provider else ()
    return [
        (
            each.periodic,
            ConsoleMetrics()
            if each.periodic.exporter.console is not None
            else of_metrics._create_push_metric_exporter(each.periodic.exporter),
        )
        for each in readers
        if each.periodic
    ]


def _log_exporters(model: Any) -> list[tuple[Any, Any]]:
    """Each processor, as declared, and its exporter."""
    of_logs = importlib.import_module(f"{_PACKAGE}._logger_provider")
    processors = model.logger_provider.processors if model.logger_provider else ()
    return [(each, _log_exporter(each, of_logs)) for each in processors]


def _providers(model: Any, node_name: str, parts: Parts) -> Providers:
    public = importlib.import_module(f"{_PACKAGE}.file")
    of_metrics = importlib.import_module(f"{_PACKAGE}._meter_provider")
    resource = _resource(public.create_resource(model.resource), model.resource, node_name)

    # What may fail comes first, and threads last.
    declared = model.meter_provider
    pushing = _metric_exporters(model)
    exporters = [exporter for _, exporter in pushing]
    limits = [
        of_metrics._create_cardinality_limits(each.cardinality_limits)
        if each.cardinality_limits
        else None
        for each, _ in pushing
    ]
    processors = _log_exporters(model)
    logs = public.create_logger_provider(
        model.logger_provider and replace(model.logger_provider, processors=[]),
        resource,
        model.attribute_limits,
    )
    pulling = [reader for reader in (declared.readers if declared else ()) if not reader.periodic]
    meters = public.create_meter_provider(declared and replace(declared, readers=pulling), resource)

    acknowledges = len(exporters) == 1 and not pulling
    ours = [
        parts.reader(
            exporter,
            acknowledges,
            each.interval,
            each.timeout,
            **({"cardinality_limits": limit} if limit else {}),
        )
        for (each, exporter), limit in zip(pushing, limits, strict=True)
    ]
    for reader in ours:
        meters.add_metric_reader(reader)
    for each, exporter in processors:
        logs.add_log_record_processor(parts.processor(exporter, **_batching(each)))

    def flush_metrics() -> None:
        for reader in ours:
            reader.force_flush()

    def shutdown_metrics() -> None:
        for reader in ours:
            reader.shutdown()
        meters.shutdown()

    # What views, limits and rules for meters say holds for the SDK's instruments.
    plain = bool(declared) and not (
        declared.views or declared.meter_configurator_development or any(limits)
    )
    exemplars = declared.exemplar_filter.value if declared and declared.exemplar_filter else ""
    return Providers(
        meters,
        logs,
        flush_metrics,
        shutdown_metrics,
        acknowledges,
        acknowledges and plain and not any(map(wants_exponential, exporters)),
        plain and not pulling,
        any(map(wants_delta, exporters)),
        exemplars or "trace_based",
        resource,
    )


def _resource(made: Any, declared: Any, node_name: str) -> Any:
    """The file's resource with our attributes, but where the file gives them itself."""
    given = (declared.attributes if declared else None) or ()
    listed = ((declared.attributes_list if declared else None) or "").split(",")
    named = [
        *(each.name for each in given if each.value is not None),
        *(part.partition("=")[0].strip() for part in listed),
    ]
    return made.merge(type(made)(own_attributes(node_name, named)))


def _log_exporter(processor: Any, of_logs: Any) -> Any:
    spec = processor.batch or processor.simple
    if spec is None:
        # Raises, and says what there is.
        return of_logs._create_log_record_processor(processor)
    if spec.exporter.console is not None:
        return ConsoleEvents()
    return of_logs._create_log_record_exporter(spec.exporter)


def _batching(processor: Any) -> dict[str, Any]:
    spec = processor.batch
    if spec is None:
        return {"schedule_delay_millis": _AT_ONCE_MS}
    given = {
        "schedule_delay_millis": spec.schedule_delay,
        "export_timeout_millis": spec.export_timeout,
        "max_queue_size": spec.max_queue_size,
        "max_export_batch_size": spec.max_export_batch_size,
    }
    return {name: value for name, value in given.items() if value is not None}


def _exporters_of(model: Any, signal: str) -> Iterator[tuple[str, Any]]:
    """Name and options of each exporter that the file declares for ``meter`` or ``logger``."""
    provider = getattr(model, f"{signal}_provider")
    for each in (getattr(provider, "readers", None) or getattr(provider, "processors", None)) or ():
        for kind in fields(each):
            spec = getattr(each, kind.name)
            if is_dataclass(spec) and hasattr(spec, "exporter"):
                yield from _named(spec.exporter)


def _named(exporter: Any) -> Iterator[tuple[str, Any]]:
    for kind in fields(exporter):
        options = getattr(exporter, kind.name)
        if options is not None:
            yield kind.name, options
    yield from getattr(exporter, "additional_properties", {}).items()


def _where(exporters: Iterator[tuple[str, Any]]) -> str:
    return " and ".join(_place(name, options) for name, options in exporters) or "nowhere"


def _place(name: str, options: Any) -> str:
    endpoint = getattr(options, "endpoint", None)
    # A user's name and password stay unsaid.
    scheme, slashes, rest = (endpoint or "").rpartition("://")
    return f"{scheme}{slashes}{rest.rpartition('@')[2]} ({name})" if endpoint else name


def _not_read(model: Any) -> Iterator[str]:
    found = {
        f"{option} of {name}"
        for signal in ("meter", "logger")
        for name, options in _exporters_of(model, signal)
        for option in _NOT_READ
        if getattr(options, option, None) not in (None, {}) and name.startswith("otlp_")
    }
    for each in sorted(found):
        yield (
            f"{each} is not read by OpenTelemetry's reader of the file; certificates are those of "
            "OTEL_EXPORTER_OTLP_CERTIFICATE"
        )
