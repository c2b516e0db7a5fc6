"""Every configuration is one that the real Collector takes, and says clearly what it lacks."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from otel_celery_memory import conventions as c
from tests.processes import LOOPBACK, free_ports
from tests.stack.certificates import made_certificate
from tests.stack.collector import CONFIGS, validated
from tests.stack.collector_build import collector_binary

EVENTS = {"EVENTS_OTLP_ENDPOINT": "http://victorialogs:9428/insert/opentelemetry"}
TRACES = {"TRACES_OTLP_ENDPOINT": "http://tempo:4318"}
TOKEN = {"COLLECTOR_TOKEN": "secret"}
PUSH = {"PROMETHEUS_OTLP_ENDPOINT": "http://prometheus:9090/api/v1/otlp"}
GATEWAY = {"GATEWAY_OTLP_ENDPOINT": "gateway:4317"}
NODE = {"K8S_NODE_NAME": "ip-10-0-0-1.eu.internal"}
HOST = {"COLLECTOR_HOST_NAME": "agent-0"}
ALL = {**EVENTS, **TRACES, **TOKEN}
DEMO = ("collector.yaml", "prometheus.yaml", "debug.yaml", "demo.yaml")
GATEWAYS = ("collector.yaml", "prometheus.yaml", "gateway/gateway.yaml")


def check(configs: Sequence[str], settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    known = {*ALL, *PUSH, *GATEWAY, *NODE, *HOST}
    kept = {name: value for name, value in os.environ.items() if name not in known}
    return validated(collector_binary(), configs, {**kept, **settings})


@pytest.mark.parametrize(
    ("configs", "settings"),
    [
        (("collector.yaml",), ALL),
        (("collector.yaml", "prometheus.yaml"), {**ALL, **PUSH}),
        (("collector.yaml", "debug.yaml"), {}),
        (GATEWAYS, {**ALL, **PUSH}),
        (("gateway/agent.yaml",), {**TOKEN, **GATEWAY, **NODE}),
        (("gateway/agent.yaml",), {**TOKEN, **GATEWAY, **HOST}),
        (DEMO, {**EVENTS, **TRACES, **PUSH}),
    ],
    ids=lambda each: "+".join(each),
)
def test_each_configuration_is_valid(configs: Sequence[str], settings: Mapping[str, str]) -> None:
    done = check(configs, settings)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_file_is_among_those_that_are_checked() -> None:
    files = {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml")}
    # profiles.yaml is valid with a gate alone: test_profiles checks and runs it.
    assert files == {"builder.yaml", "profiles.yaml", "gateway/agent.yaml", *DEMO, *GATEWAYS}


@pytest.mark.parametrize(
    ("configs", "settings", "complaint"),
    [
        (
            ("collector.yaml",),
            {**TRACES, **TOKEN},
            "exporters::otlp_http/events: at least one endpoint must be specified",
        ),
        (
            ("collector.yaml",),
            {**EVENTS, **TOKEN},
            "exporters::otlp_http/traces: at least one endpoint must be specified",
        ),
        (
            ("collector.yaml",),
            {**EVENTS, **TRACES},
            "extensions::bearertokenauth: no bearer token provided",
        ),
        (
            ("collector.yaml", "prometheus.yaml"),
            ALL,
            "exporters::otlp_http/prometheus: at least one endpoint must be specified",
        ),
        (
            ("gateway/agent.yaml",),
            {**TOKEN, **NODE},
            'otlp_grpc/gateway: requires a non-empty "endpoint"',
        ),
        (
            ("gateway/agent.yaml",),
            {**TOKEN, **GATEWAY},
            "COLLECTOR_HOST_NAME or K8S_NODE_NAME must be set",
        ),
    ],
    ids=["events", "traces", "token", "prometheus", "gateway", "host"],
)
def test_a_missing_endpoint_is_named(
    configs: Sequence[str], settings: Mapping[str, str], complaint: str
) -> None:
    done = check(configs, settings)
    assert done.returncode != 0
    assert complaint in done.stderr


def started(directory: Path, **settings: str) -> str:
    """What a Collector says that cannot start."""
    names = ("OTLP_GRPC_ENDPOINT", "OTLP_HTTP_ENDPOINT", "PROMETHEUS_ENDPOINT", "HEALTH_ENDPOINT")
    *ports, self_metrics = free_ports(len(names) + 1)
    addresses = [f"{LOOPBACK}:{port}" for port in ports]
    places = {f"COLLECTOR_{name}": at for name, at in zip(names, addresses, strict=True)}
    environment = {
        **os.environ,
        **ALL,
        **places,
        "COLLECTOR_SELF_METRICS_HOST": LOOPBACK,
        "COLLECTOR_SELF_METRICS_PORT": str(self_metrics),
        "COLLECTOR_STORAGE_DIRECTORY": str(directory),
        **settings,
    }
    command = [str(collector_binary()), "--config", str(CONFIGS / "collector.yaml")]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode != 0
    return done.stderr.splitlines()[-1]


def test_a_certificate_that_is_missing_is_named(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none.crt")
    said = started(tmp_path, COLLECTOR_TLS_CERT_FILE=nowhere, COLLECTOR_TLS_KEY_FILE=nowhere)
    assert said == (
        'Error: cannot start pipelines: failed to start "otlp" receiver: failed to load TLS '
        f"config: failed to load TLS cert and key: open {nowhere}: no such file or directory"
    )


def test_a_certificate_that_is_none_is_refused(tmp_path: Path) -> None:
    made = made_certificate(tmp_path)
    made.certificate.write_text("no certificate\n", encoding="utf-8")
    said = started(
        tmp_path,
        COLLECTOR_TLS_CERT_FILE=str(made.certificate),
        COLLECTOR_TLS_KEY_FILE=str(made.key),
    )
    assert said.startswith('Error: cannot start pipelines: failed to start "otlp" receiver')
    assert said.endswith("tls: failed to find any PEM data in certificate input")


def test_only_what_asks_for_a_token_listens_beyond_the_loopback_by_default() -> None:
    lines = [
        line.strip()
        for path in sorted(CONFIGS.rglob("*.yaml"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if ":-0.0.0.0" in line
    ]
    assert lines == [
        "endpoint: ${env:COLLECTOR_OTLP_GRPC_ENDPOINT:-0.0.0.0:4317}",
        "endpoint: ${env:COLLECTOR_OTLP_HTTP_ENDPOINT:-0.0.0.0:4318}",
    ]


def test_the_reference_opens_what_its_prometheus_scrapes() -> None:
    root = CONFIGS.parent
    scraped = re.findall(
        r'"collector:(\d+)"', (root / "deploy" / "prometheus.yml").read_text(encoding="utf-8")
    )
    assert scraped == ["8889", "8888"]
    text = (root / "compose.production.yaml").read_text(encoding="utf-8")
    assert "      COLLECTOR_PROMETHEUS_ENDPOINT: 0.0.0.0:8889\n" in text
    assert "      COLLECTOR_SELF_METRICS_HOST: 0.0.0.0\n" in text


def test_the_guard_lets_through_just_the_attributes_of_the_contract() -> None:
    text = (CONFIGS / "collector.yaml").read_text(encoding="utf-8")
    _, _, rest = text.partition("keep_keys(datapoint.attributes, [")
    listed, _, _ = rest.partition("]")
    names = {word.strip(' \n"') for word in listed.split(",")}
    assert names == {name for metric in c.METRICS for name in metric.attributes}
