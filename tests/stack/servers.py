"""The whole stack as it runs in production, on free ports: three Collectors and what is behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.receiver import Receiver
from tests.processes import LOOPBACK, free_ports
from tests.stack.alertmanager import Alertmanager, running_alertmanager
from tests.stack.certificates import Certificate, made_certificate
from tests.stack.collector import Collector, running_collector
from tests.stack.jaeger import Jaeger, running_jaeger
from tests.stack.prometheus import RULES, Prometheus, running_prometheus
from tests.stack.scaled_rules import scaled_rules
from tests.stack.victorialogs import VictoriaLogs, running_victorialogs

TOKEN = "the-token-of-the-tests"
SCRAPE_INTERVAL_S = 2
# The events of production a second time, into a file: what the store must have.
BESIDE = """\
exporters:
  file/events: {path: "${env:COLLECTOR_EVENTS_FILE}", create_directory: true}
service:
  pipelines:
    logs: {exporters: [otlp_http/events, file/events]}
"""


@dataclass(frozen=True)
class Stack:
    """Everything that runs; ``refusing`` has too little memory, ``stuck`` no store of events
    behind it and a store of traces that takes none."""

    collector: Collector
    refusing: Collector
    stuck: Collector
    prometheus: Prometheus
    victorialogs: VictoriaLogs
    jaeger: Jaeger
    alertmanager: Alertmanager
    certificate: Certificate

    def client_environ(self) -> Mapping[str, str]:
        """What a worker needs to be let in."""
        return {
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(self.certificate.certificate),
            # Where it is set, requests lets it win over the exporter's own certificate.
            "REQUESTS_CA_BUNDLE": str(self.certificate.certificate),
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer {TOKEN}".replace(" ", "%20"),
        }


@contextmanager
def running_stack(binary: Path, directory: Path) -> Iterator[Stack]:
    """All of it, for as long as the context lasts."""
    with ExitStack() as held:

        def place(name: str) -> Path:
            made = directory / name
            made.mkdir()
            return made

        certificate = made_certificate(directory)
        beside = directory / "beside.yaml"
        beside.write_text(BESIDE, encoding="utf-8")
        victorialogs = held.enter_context(running_victorialogs(place("victorialogs")))
        jaeger = held.enter_context(running_jaeger(place("jaeger")))
        picky = held.enter_context(Receiver(400))
        alertmanager = held.enter_context(running_alertmanager(place("alertmanager")))

        def collector(name: str, **settings: str) -> Collector:
            every = {
                "COLLECTOR_TOKEN": TOKEN,
                "COLLECTOR_TLS_CERT_FILE": str(certificate.certificate),
                "COLLECTOR_TLS_KEY_FILE": str(certificate.key),
                "COLLECTOR_METRIC_EXPIRATION": "20s",
                "EVENTS_OTLP_ENDPOINT": victorialogs.otlp_endpoint,
                "TRACES_OTLP_ENDPOINT": jaeger.otlp_endpoint,
                "COLLECTOR_HOST_NAME": name,
                "K8S_CLUSTER_NAME": "tests",
            }
            configs = ("collector.yaml", str(beside))
            return held.enter_context(
                running_collector(binary, place(name), configs, {**every, **settings})
            )

        (nobody,) = free_ports(1)
        collectors = (
            collector("collector"),
            collector("refusing", COLLECTOR_MEMORY_LIMIT_MIB="4"),
            collector(
                "stuck",
                EVENTS_OTLP_ENDPOINT=f"http://{LOOPBACK}:{nobody}",
                TRACES_OTLP_ENDPOINT=picky.endpoint,
            ),
        )
        rules = place("rules")
        for source in RULES.glob("*.yaml"):
            (rules / source.name).write_bytes(source.read_bytes())
        (rules / "scaled.yaml").write_text(scaled_rules(), encoding="utf-8")
        prometheus = held.enter_context(
            running_prometheus(
                place("prometheus"),
                collectors,
                alertmanager=alertmanager.address,
                rules=f"{rules}/*.yaml",
                interval_s=SCRAPE_INTERVAL_S,
            )
        )
        yield Stack(*collectors, prometheus, victorialogs, jaeger, alertmanager, certificate)
