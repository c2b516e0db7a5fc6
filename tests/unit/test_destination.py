"""Where telemetry goes by OpenTelemetry's variables, and what of them cannot be had."""

from __future__ import annotations

import pytest

from otel_celery_memory.destination import (
    LOGS,
    METRICS,
    Destination,
    installed_exporters,
    is_disabled,
    read_destination,
)

INSTALLED = {"otlp", "console", "otlp_proto_grpc", "otlp_proto_http"}


def read(signal: str = METRICS, *more: str, **variables: str) -> Destination:
    """Where a signal goes with these variables, less their ``OTEL_``, and these more exporters."""
    environ = {f"OTEL_{name}": value for name, value in variables.items()}
    return read_destination(signal, environ, lambda _: INSTALLED | {*more})


def test_by_default_both_signals_go_to_this_machine_by_otlp_over_http() -> None:
    for signal in (METRICS, LOGS):
        found = read(signal)
        assert (found.exporters, found.refused) == (("otlp",), ())
        assert str(found) == "http://localhost:4318 (http/protobuf)"
        assert found.address == ("localhost", 4318)


def test_a_signal_s_own_variables_come_before_the_general_ones() -> None:
    variables = {
        "EXPORTER_OTLP_ENDPOINT": "http://all:4318",
        "EXPORTER_OTLP_LOGS_ENDPOINT": "https://logs/v1",
        "EXPORTER_OTLP_PROTOCOL": "grpc",
        "EXPORTER_OTLP_LOGS_PROTOCOL": "http/protobuf",
    }
    assert str(read(METRICS, **variables)) == "http://all:4318 (grpc)"
    assert str(read(LOGS, **variables)) == "https://logs/v1 (http/protobuf)"
    assert read(LOGS, **variables).address == ("logs", 443)


@pytest.mark.parametrize(
    ("wanted", "exporters", "shown"),
    [
        ("none", (), "nowhere"),
        ("otlp, None", (), "nowhere"),
        ("console", ("console",), "the exporter console"),
        (
            "OTLP, console,",
            ("otlp", "console"),
            "http://localhost:4318 (http/protobuf) and the exporter console",
        ),
        ("otlp_proto_grpc", ("otlp_proto_grpc",), "the exporter otlp_proto_grpc"),
    ],
)
def test_exporters_that_there_are_are_used(
    wanted: str, exporters: tuple[str, ...], shown: str
) -> None:
    found = read(METRICS_EXPORTER=wanted)
    assert (found.exporters, found.refused, str(found)) == (exporters, (), shown)


def test_an_exporter_is_used_once_its_package_is_installed_and_refused_with_its_name_before() -> (
    None
):
    assert read(METRICS, "prometheus", METRICS_EXPORTER="prometheus").exporters == ("prometheus",)
    found = read(METRICS_EXPORTER="prometheus")
    assert found.exporters == ("otlp",)
    assert found.refused == (
        "OTEL_METRICS_EXPORTER=prometheus cannot be had, otlp is used: there are otlp, console, "
        "none, otlp_proto_grpc, otlp_proto_http; prometheus comes with "
        "opentelemetry-exporter-prometheus",
    )


def test_what_cannot_be_had_beside_what_can_is_refused_alone() -> None:
    found = read(LOGS, LOGS_EXPORTER="console,pigeon,owl")
    assert found.exporters == ("console",)
    assert [line.partition(":")[0] for line in found.refused] == [
        "OTEL_LOGS_EXPORTER=pigeon cannot be had, console is used",
        "OTEL_LOGS_EXPORTER=owl cannot be had, console is used",
    ]


def test_json_is_used_once_its_exporter_is_installed_and_refused_with_its_name_before() -> None:
    wanted = {"EXPORTER_OTLP_PROTOCOL": "http/json"}
    found = read(METRICS, "otlp_json_http", **wanted)
    assert (found.protocol, found.refused) == ("http/json", ())
    found = read(**wanted)
    assert found.protocol == "http/protobuf"
    assert found.refused == (
        "OTEL_EXPORTER_OTLP_PROTOCOL=http/json cannot be had, http/protobuf is used: there are "
        "http/protobuf, grpc; http/json comes with opentelemetry-exporter-otlp-json-http",
    )


def test_a_protocol_that_there_is_not_is_refused_unless_nothing_goes_by_it() -> None:
    assert read(EXPORTER_OTLP_METRICS_PROTOCOL="smoke").refused == (
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=smoke cannot be had, http/protobuf is used: there are "
        "http/protobuf, grpc",
    )
    assert read(EXPORTER_OTLP_PROTOCOL="smoke", METRICS_EXPORTER="none").refused == ()


def test_a_user_s_name_and_password_are_not_shown() -> None:
    found = read(EXPORTER_OTLP_ENDPOINT="https://me:secret@collector:4318/otlp")
    assert str(found) == "https://collector:4318/otlp (http/protobuf)"
    assert found.address == ("collector", 4318)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://collector:port", "the OTLP endpoint 'http://collector:port' has no usable port"),
        ("http://:4318", "the OTLP endpoint 'http://:4318' has no host"),
    ],
)
def test_a_url_without_an_address_is_an_error(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _ = read(EXPORTER_OTLP_ENDPOINT=url).address


def test_an_endpoint_without_a_scheme_has_an_address() -> None:
    assert read(EXPORTER_OTLP_ENDPOINT="collector:4317").address == ("collector", 4317)


def test_the_sdk_is_disabled_by_true_in_any_case() -> None:
    assert [is_disabled({"OTEL_SDK_DISABLED": each}) for each in (" True", "1", "")] == [
        True,
        False,
        False,
    ]


def test_exporters_are_found_by_their_entry_points() -> None:
    assert installed_exporters(METRICS) >= INSTALLED
    assert installed_exporters(LOGS) >= INSTALLED
