"""Check what can be measured on this machine, and whether the OTLP endpoint accepts telemetry.

Run it where the worker runs, with the worker's environment: it sends one empty request for metrics
as the worker would. Exits with 1 if the endpoint does not accept it.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

from otel_celery_memory.cli.common import CommandError
from otel_celery_memory.probes.allocators import read_heap
from otel_celery_memory.probes.limits import read_limits
from otel_celery_memory.probes.own_memory import LinuxProcessProbe, open_process_probe
from otel_celery_memory.probes.procfs import read_process, read_shared
from otel_celery_memory.probes.tracemalloc_session import stop_is_fixed
from otel_celery_memory.settings import SettingError, Settings

_MIB = 1 << 20
_EXPORTERS = "opentelemetry.exporter.otlp"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--timeout", type=float, default=3.0, metavar="S", help="wait for the endpoint (default 3)"
    )


def run(options: argparse.Namespace) -> int:
    """Prints the findings; returns 1 if the endpoint does not accept telemetry."""
    try:
        settings = Settings.load({}, os.environ)
    except SettingError as error:
        raise CommandError(str(error)) from None
    _section("Settings", {item.name: getattr(settings, item.name) for item in fields(settings)})
    _section("Measured here", measurable())
    limits = read_limits(os.getpid())
    _section(
        "Limits",
        {
            item.name.removesuffix("_bytes"): _mib(getattr(limits, item.name))
            for item in fields(limits)
        },
    )
    host, port = endpoint(os.environ)
    trouble = refusal(os.environ, options.timeout)
    if trouble:
        trouble = _unreachable(host, port, options.timeout) or f"not accepted: {trouble}"
    _section("OTLP endpoint", {f"{host}:{port}": trouble or "accepted an empty request"})
    return 1 if trouble else 0


def measurable() -> dict[str, str]:
    """What can be measured in this process, and from which source."""
    probe = open_process_probe()
    peak = probe.resets_peak
    reading = read_process(os.getpid())
    shared = read_shared(os.getpid())
    heap = read_heap()
    source = "/proc" if isinstance(probe, LinuxProcessProbe) else "psutil"
    probe.close()
    return {
        "RSS of a task": f"yes, by {source}",
        "peak RSS of a task": _yes(peak, "/proc/self/clear_refs cannot be written"),
        "USS and PSS": _yes(shared.unique_bytes is not None, "no smaps_rollup"),
        "open files": _yes(reading is not None and reading.open_files is not None, "no /proc"),
        "malloc in use and free": _yes(heap.malloc_used_bytes is not None, "no mallinfo2"),
        "allocations of a task": _yes(
            stop_is_fixed(),
            "not beside native threads that may enter the interpreter: gh-128679, fixed in CPython "
            "3.12.9 and 3.13.2; those of OpenBLAS and OpenMP may not",
        ),
        "process ends at once": _yes(
            hasattr(os, "pidfd_open"), "no pidfd: noticed within a second"
        ),
    }


def endpoint(environ: Mapping[str, str]) -> tuple[str, int]:
    """Host and port that metrics go to, from OpenTelemetry's standard variables."""
    grpc = _is_grpc(environ)
    url = (
        environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
        or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        or ("http://localhost:4317" if grpc else "http://localhost:4318")
    )
    parts = urlsplit(url if "//" in url else f"//{url}")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 4317 if grpc else 80)
    except ValueError:
        raise CommandError(f"the OTLP endpoint {url!r} has no usable port") from None
    if not parts.hostname:
        raise CommandError(f"the OTLP endpoint {url!r} has no host")
    return parts.hostname, port


def refusal(environ: Mapping[str, str], timeout_s: float) -> str | None:
    """Why an empty request for metrics was refused, in the exporter's words; ``None`` if accepted.

    The SDK's own exporter sends it, with the protocol, headers and certificates of the worker's
    exporter. It returns no status, but logs the one of HTTP or gRPC.
    """
    package = "grpc" if _is_grpc(environ) else "http"
    log_lines = _ExporterLog()
    log = logging.getLogger(_EXPORTERS)
    propagate, log.propagate = log.propagate, False
    log.addHandler(log_lines)
    try:
        module = importlib.import_module(f"{_EXPORTERS}.proto.{package}.metric_exporter")
        sdk: Any = importlib.import_module("opentelemetry.sdk.metrics.export")
        exporter: Any = module.OTLPMetricExporter(timeout=timeout_s)
        result = exporter.export(sdk.MetricsData(resource_metrics=[]))
        exporter.shutdown()
    except Exception as error:  # an unreadable certificate raises differently by release
        return _printable(f"{type(error).__name__}: {error}")
    finally:
        log.removeHandler(log_lines)
        log.propagate = propagate
    if result is sdk.MetricExportResult.SUCCESS:
        return None
    # The first line names a failure that was retried; the last may say timeout only.
    return (
        " ".join(dict.fromkeys(log_lines.lines[:1] + log_lines.lines[-1:])) or "no reason was given"
    )


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


def _is_grpc(environ: Mapping[str, str]) -> bool:
    return (
        environ.get("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "").strip()
        or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip()
    ) == "grpc"


def _unreachable(host: str, port: int, timeout_s: float) -> str | None:
    try:
        with socket.create_connection((host, port), timeout_s):
            return None
    except OSError as error:
        return f"not reached: {error}"


def _yes(can: bool, why_not: str) -> str:
    return "yes" if can else f"no: {why_not}"


def _mib(size_bytes: int | None) -> str:
    return "none" if size_bytes is None else f"{size_bytes / _MIB:,.0f} MiB"


def _section(title: str, lines: Mapping[str, object]) -> None:
    print(title)
    for name, value in lines.items():
        shown = ", ".join(value) or "-" if isinstance(value, tuple) else value
        print(f"  {name:24} {shown}")
