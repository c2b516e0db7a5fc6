"""Check what can be measured on this machine, and whether telemetry would arrive.

Run it where the worker runs, as its user and with its environment: it sends one empty request for
metrics and one for events as the worker would, and says what to do about what it finds. Exits with
1 if telemetry would not arrive.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import platform
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from otel_celery_memory.cli import findings, versions
from otel_celery_memory.cli.common import filled
from otel_celery_memory.cli.findings import Finding
from otel_celery_memory.config_file import ConfigFileError, config_file, own_options
from otel_celery_memory.conventions import VERSION
from otel_celery_memory.destination import (
    CONSOLE,
    GRPC,
    HTTP,
    LOGS,
    METRICS,
    OTLP,
    Destination,
    is_disabled,
    read_destination,
)
from otel_celery_memory.probes.abilities import Ability, read_abilities
from otel_celery_memory.probes.limits import Limits, read_limits
from otel_celery_memory.settings import Settings

_MIB = 1 << 20
_EXPORTERS = "opentelemetry.exporter.otlp"
_SENT = {METRICS: "metrics", LOGS: "events"}
_LIMITS = {
    "cgroup_bytes": "cgroup",
    "cgroup_used_bytes": "cgroup, in use",
    "cgroup_high_bytes": "cgroup, throttled from",
    "cgroup_swap_bytes": "cgroup, swap",
    "cgroup_swap_used_bytes": "cgroup, swap in use",
    "rlimit_as_bytes": "address space (ulimit -v)",
    "rlimit_data_bytes": "data (ulimit -d)",
    "host_bytes": "machine",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--timeout",
        type=float,
        default=3.0,
        metavar="S",
        help="seconds to wait for the endpoint (default 3)",
    )


def run(options: argparse.Namespace) -> int:
    """Prints the findings; returns 1 if telemetry would not arrive."""
    file, declared, of_file = _declared()
    settings, errors = Settings.load_usable({}, os.environ, declared, file)
    abilities, limits = read_abilities(), read_limits(os.getpid())
    # A file that can be used is all that counts.
    destinations = (
        [] if file else [read_destination(signal, os.environ) for signal in (METRICS, LOGS)]
    )
    found = [
        *of_file,
        *findings.of_variables(os.environ, errors, destinations),
        *findings.of_versions(versions.conflicts()),
        *findings.of_patterns(settings, lambda path: Path(path).exists()),
        *findings.of_directories(settings),
        *findings.of_machine(limits, is_root=os.geteuid() == 0),
    ]
    print(f"otel-celery-memory {VERSION}, {_runtime()}")
    _section("Settings", _with_units(settings))
    _section("Measured here", {each.name: _shown(each) for each in abilities})
    _section("Limits", dict(_limits(limits)))
    if not is_disabled(os.environ) and file:
        told, more = _try_file(file)
        _section("Telemetry", told)
        found += more
    elif not is_disabled(os.environ):
        tried = [_try(each, options.timeout) for each in destinations]
        _section(
            "Telemetry",
            {_SENT[each.signal]: told for each, (told, _) in zip(destinations, tried, strict=True)},
        )
        found += _together([finding for _, finding in tried if finding], destinations)
    _print_findings(found)
    return 1 if any(each.grave for each in found) else 0


def _declared() -> tuple[str, dict[str, Any], list[Finding]]:
    """The file of ``OTEL_CONFIG_FILE``, our options in it, what is wrong with it.

    There is no file where it cannot be used.
    """
    file = config_file(os.environ)
    if not file:
        return "", {}, []
    try:
        _exporters_to_try(file)
        options = own_options(os.environ)
    except ConfigFileError as error:
        return "", {}, [findings.of_config_file(error)]
    if options is None:
        text = f"{file} switches otel_celery_memory off: nothing is measured"
        return file, {}, [Finding(text, "take that out of it", grave=True)]
    return file, options, []


def _exporters_to_try(file: str) -> list[Any]:
    # The SDK, which takes a good part of a second.
    from otel_celery_memory.telemetry.declared import exporters_to_try

    return list(exporters_to_try(file))


def _try_file(file: str) -> tuple[dict[str, str], list[Finding]]:
    """Where the file sends to, and what is wrong where an empty request was refused."""
    told: dict[str, str] = {}
    found: list[Finding] = []
    signals = []
    for each in _exporters_to_try(file):
        signals.append(each.signal)
        trouble = _refusal(partial(_with_nothing, each.signal, each.exporter))
        told[_SENT[each.signal]] = f"to {each.place}" + ("" if trouble else ", accepted")
        if trouble:
            text = f"{_SENT[each.signal]}: {each.place} not accepted: {trouble}"
            found.append(Finding(text, f"look into {file}, and the endpoint's log", grave=True))
    return told, [*found, *findings.of_declared_signals(signals)]


def _try(destination: Destination, timeout_s: float) -> tuple[str, Finding | None]:
    """Where a signal goes, and what is wrong if an empty request was refused there."""
    if OTLP not in destination.exporters:
        how = "on the worker's standard output" if CONSOLE in destination.exporters else "not tried"
        return f"to {destination}" + (f", {how}" if destination.exporters else ""), None
    try:
        host, port = destination.address
    except ValueError as error:
        return f"to {destination}", Finding(str(error), "write http://host:4318", grave=True)
    trouble = refusal(destination, timeout_s)
    if trouble is None:
        return f"to {destination}: {host}:{port} accepted an empty request", None
    unreachable = _unreachable(host, port, timeout_s)
    told = f"{host}:{port} " + (unreachable or f"not accepted: {trouble}")
    remedy = _remedy(destination, trouble, reached=not unreachable)
    return f"to {destination}", Finding(f"{_SENT[destination.signal]}: {told}", remedy, grave=True)


def _together(found: Sequence[Finding], destinations: Sequence[Destination]) -> list[Finding]:
    """One finding where metrics and events fail at one place."""
    places = {(each.protocol, each.url) for each in destinations}
    if len(found) == len(destinations) and len(places) == 1:
        _, _, told = found[0].text.partition(": ")
        return [replace(found[0], text=f"metrics and events: {told}")]
    return list(found)


def _remedy(destination: Destination, trouble: str, *, reached: bool) -> str:
    """What may help where an endpoint did not take the request."""
    if destination.wrong_port:
        return f"{destination.wrong_port}: change OTEL_EXPORTER_OTLP_PROTOCOL, or the port"
    if not reached:
        return (
            "start a Collector there, or otel-celery-memory view on this machine, or set "
            "OTEL_EXPORTER_OTLP_ENDPOINT to where one is"
        )
    if any(code in trouble for code in ("401", "403", "UNAUTHENTICATED", "PERMISSION_DENIED")):
        return "set OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20... to the endpoint's token"
    if "certificate" in trouble:
        return "set OTEL_EXPORTER_OTLP_CERTIFICATE to the file of the authority that signed it"
    if "404" in trouble and destination.signal == LOGS:
        return "if it takes no logs, set OTEL_LOGS_EXPORTER=none, or name another endpoint for them"
    return "look into the endpoint's log"


def refusal(destination: Destination, timeout_s: float) -> str | None:
    """Why an empty request was refused, in the exporter's words; ``None`` if it was accepted.

    The SDK's own exporter sends it, with the protocol, headers and certificates of the worker's
    exporter. It returns no status, but logs the one of HTTP or gRPC.
    """
    return _refusal(lambda: _exporter(destination, timeout_s))


def _refusal(make: Callable[[], tuple[Any, Any]]) -> str | None:
    """Why an exporter's request was refused; ``make`` gives the exporter and what it sends."""
    log_lines = _ExporterLog()
    log = logging.getLogger(_EXPORTERS)
    propagate, log.propagate = log.propagate, False
    log.addHandler(log_lines)
    try:
        exporter, nothing = make()
        # These drop what looks like a repetition, such as the same status for the other signal.
        for name in [
            each for each in logging.root.manager.loggerDict if each.startswith(_EXPORTERS)
        ]:
            logging.getLogger(name).filters.clear()
        result = exporter.export(nothing)
        exporter.shutdown()
    except Exception as error:  # an unreadable certificate raises differently by release
        return _printable(f"{type(error).__name__}: {error}")
    finally:
        log.removeHandler(log_lines)
        log.propagate = propagate
    if result.name == "SUCCESS":
        return None
    # The first line names a failure that was retried; the last may say timeout only.
    return (
        " ".join(dict.fromkeys(log_lines.lines[:1] + log_lines.lines[-1:])) or "no reason was given"
    )


def _exporter(destination: Destination, timeout_s: float) -> tuple[Any, Any]:
    """The worker's exporter, and what it exports where there is nothing."""
    package = {GRPC: "proto.grpc", HTTP: "proto.http"}.get(destination.protocol, "json.http")
    if destination.signal == LOGS:
        module = importlib.import_module(f"{_EXPORTERS}.{package}._log_exporter")
        return module.OTLPLogExporter(timeout=timeout_s), _nothing(LOGS)
    module = importlib.import_module(f"{_EXPORTERS}.{package}.metric_exporter")
    return module.OTLPMetricExporter(timeout=timeout_s), _nothing(METRICS)


def _with_nothing(signal: str, exporter: Any) -> tuple[Any, Any]:
    return exporter, _nothing(signal)


def _nothing(signal: str) -> Any:
    if signal == LOGS:
        return []
    sdk: Any = importlib.import_module("opentelemetry.sdk.metrics.export")
    return sdk.MetricsData(resource_metrics=[])


class _ExporterLog(logging.Handler):
    """Keeps the lines that the exporter logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(_printable(record.getMessage()))


def _printable(text: str) -> str:
    """One line without characters that control a terminal."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _unreachable(host: str, port: int, timeout_s: float) -> str | None:
    try:
        with socket.create_connection((host, port), timeout_s):
            return None
    except OSError as error:
        return f"not reached: {error}"


def _runtime() -> str:
    """The interpreter and the packages that decide what is measured and sent."""
    named = {"Celery": "celery", "OpenTelemetry SDK": "opentelemetry-sdk"}
    packages = ", ".join(f"{name} {_version(package)}" for name, package in named.items())
    return f"{platform.python_implementation()} {platform.python_version()}, {packages}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _with_units(settings: Settings) -> dict[str, str]:
    shown = {}
    for item in fields(settings):
        value, unit = getattr(settings, item.name), item.metadata["unit"]
        if isinstance(value, bool):
            text = str(value).lower()
        elif isinstance(value, (int, float)):
            text = f"{value:g} {unit.removesuffix('s') if value == 1 and unit != 's' else unit}"
        else:
            text = ", ".join(value) if isinstance(value, tuple) else value
        shown[item.name] = text.rstrip() or "-"
    return shown


def _shown(ability: Ability) -> str:
    if ability.why_not:
        return f"no: {ability.why_not}" + (f". {ability.remedy}" if ability.remedy else "")
    return f"yes, by {ability.source}" if ability.source else "yes"


def _limits(limits: Limits) -> Iterator[tuple[str, str]]:
    for name, words in _LIMITS.items():
        size_bytes = getattr(limits, name)
        yield words, "none" if size_bytes is None else f"{size_bytes / _MIB:,.0f} MiB"


def _section(title: str, lines: Mapping[str, str]) -> None:
    print(f"\n{title}")
    for name, value in lines.items():
        for line in filled(f"  {name:26} ", value):
            print(line)


def _print_findings(found: Iterable[Finding]) -> None:
    ordered = sorted(found, key=lambda each: not each.grave)
    grave = sum(each.grave for each in ordered)
    if ordered:
        print("\nTo mend" if grave else "\nTo know")
    for each in ordered:
        for line in filled("  ! " if each.grave else "  - ", _printable(each.text)):
            print(line)
        for line in filled("    -> ", _printable(each.remedy)):
            print(line)
    said = f"no, for {grave} reason{'s' * (grave != 1)} marked !" if grave else "yes"
    print(f"\nTelemetry would arrive: {said}")
