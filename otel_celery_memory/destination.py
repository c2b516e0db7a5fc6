"""Where telemetry goes, as OpenTelemetry's standard variables say, read without its SDK.

The reporter sends to what is read here, the worker names it when it starts, and ``check`` tries it.
An exporter or a protocol that there is not is refused in one line, which says what there is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from urllib.parse import urlsplit

METRICS, LOGS = "METRICS", "LOGS"
"""The signals: metrics, and events, which are log records."""
OTLP, CONSOLE, NONE = "otlp", "console", "none"
GRPC, HTTP, JSON = "grpc", "http/protobuf", "http/json"
ENTRY_POINTS = {GRPC: "otlp_proto_grpc", HTTP: "otlp_proto_http", JSON: "otlp_json_http"}
"""The entry point of each protocol's exporter."""
_COMES_WITH = {
    "prometheus": "opentelemetry-exporter-prometheus",
    ENTRY_POINTS[JSON]: "opentelemetry-exporter-otlp-json-http",
}
"""The package of an exporter that is not installed with ours."""


@dataclass(frozen=True)
class Destination:
    """Where one signal goes."""

    signal: str
    exporters: tuple[str, ...]
    """``otlp``, ``console``, or names of exporters' entry points; none if nothing is sent."""
    protocol: str
    """Of OTLP: ``http/protobuf``, ``grpc`` or ``http/json``."""
    url: str
    """Of OTLP, as the user wrote it."""
    refused: tuple[str, ...] = ()
    """What the variables ask for and cannot be had: one line each, with what is used instead."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of OTLP's endpoint. Raises `ValueError` if the URL has none."""
        parts = urlsplit(self.url if "//" in self.url else f"//{self.url}")
        try:
            port = parts.port
        except ValueError:
            raise ValueError(f"the OTLP endpoint {self.shown_url!r} has no usable port") from None
        if not parts.hostname:
            raise ValueError(f"the OTLP endpoint {self.shown_url!r} has no host")
        usual = 4317 if self.protocol == GRPC else 80
        return parts.hostname, port or (443 if parts.scheme == "https" else usual)

    @property
    def wrong_port(self) -> str:
        """Why the port is probably the other protocol's; empty if it is not."""
        usual = {
            (HTTP, 4317): f"4317 is the port of {GRPC}",
            (GRPC, 4318): f"4318 is that of {HTTP}",
        }
        try:
            _, port = self.address
        except ValueError:
            return ""
        return usual.get((self.protocol, port), "") if OTLP in self.exporters else ""

    @property
    def shown_url(self) -> str:
        """The URL without a user's name and password."""
        before, at, after = self.url.rpartition("@")
        scheme, slashes, _ = before.partition("//")
        return f"{scheme}{slashes}{after}" if at else self.url

    def __str__(self) -> str:
        """For people: ``http://collector:4318 (http/protobuf)``."""
        named = (
            f"{self.shown_url} ({self.protocol})" if name == OTLP else f"the exporter {name}"
            for name in self.exporters
        )
        return " and ".join(named) or "nowhere"


def warnings_of(destinations: Iterable[Destination]) -> list[str]:
    """What a worker warns of when it starts: a line each, none twice."""
    found: list[str] = []
    for each in destinations:
        found += each.refused
        if each.wrong_port:
            found.append(
                f"telemetry goes to {each.shown_url} by {each.protocol}, but {each.wrong_port}; "
                "OTEL_EXPORTER_OTLP_PROTOCOL chooses, which opentelemetry-distro sets to grpc if "
                "it is not set"
            )
    return list(dict.fromkeys(found))


def is_disabled(environ: Mapping[str, str]) -> bool:
    """Whether ``OTEL_SDK_DISABLED`` switches all of OpenTelemetry off."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def installed_exporters(signal: str) -> frozenset[str]:
    """Names of the exporters that are installed for a signal."""
    group = f"opentelemetry_{signal.lower()}_exporter"
    return frozenset(entry.name for entry in metadata.entry_points(group=group))


def read_destination(
    signal: str,
    environ: Mapping[str, str],
    installed: Callable[[str], Collection[str]] = installed_exporters,
) -> Destination:
    """Where a signal goes; ``installed`` is asked only for what is not ours."""
    variable = f"OTEL_{signal}_EXPORTER"
    wanted = [word.strip() for word in environ.get(variable, "").split(",") if word.strip()]
    refused: list[str] = []
    exporters: list[str] = []
    for name in wanted:
        if name.lower() in (OTLP, CONSOLE, NONE):
            exporters.append(name.lower())
        elif name in installed(signal):
            exporters.append(name)
        else:
            refused.append(name)
    if NONE in exporters:
        exporters = []
    elif not exporters:
        exporters = [OTLP]
    protocol, no_protocol = _protocol(signal, environ, installed)
    return Destination(
        signal,
        tuple(exporters),
        protocol,
        _url(signal, environ, protocol),
        (
            *(_no_exporter(variable, name, exporters, installed(signal)) for name in refused),
            *([no_protocol] if no_protocol and OTLP in exporters else []),
        ),
    )


def _protocol(
    signal: str, environ: Mapping[str, str], installed: Callable[[str], Collection[str]]
) -> tuple[str, str]:
    """The OTLP protocol, and why it is not the one that was asked for.

    HTTP is the default, as gRPC takes more memory and does not survive a fork.
    """
    own = f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"
    variable = own if environ.get(own, "").strip() else "OTEL_EXPORTER_OTLP_PROTOCOL"
    wanted = environ.get(variable, "").strip()
    if wanted in ("", GRPC, HTTP):
        return wanted or HTTP, ""
    if wanted == JSON and ENTRY_POINTS[JSON] in installed(signal):
        return JSON, ""
    hint = f"; {JSON} comes with {_COMES_WITH[ENTRY_POINTS[JSON]]}" if wanted == JSON else ""
    return (
        HTTP,
        f"{variable}={wanted} cannot be had, {HTTP} is used: there are {HTTP}, {GRPC}{hint}",
    )


def _no_exporter(
    variable: str, name: str, used: Collection[str], installed: Collection[str]
) -> str:
    there_are = ", ".join([OTLP, CONSOLE, NONE, *sorted({*installed} - {OTLP, CONSOLE, NONE})])
    hint = f"; {name} comes with {_COMES_WITH[name]}" if name in _COMES_WITH else ""
    instead = " and ".join(used) or "nothing"
    return f"{variable}={name} cannot be had, {instead} is used: there are {there_are}{hint}"


def _url(signal: str, environ: Mapping[str, str], protocol: str) -> str:
    return (
        environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "").strip()
        or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
        or ("http://localhost:4317" if protocol == GRPC else "http://localhost:4318")
    )
