"""The command `check` sends empty requests as the worker would, and says what is to be mended."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from otel_celery_memory.probes import abilities
from tests.processes import LOOPBACK, free_ports
from tests.stack.certificates import made_certificate
from tests.unit.cli.running import Command

TOKEN = "Bearer secret"
UNSET = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY")


class Door(BaseHTTPRequestHandler):
    """Lets in who brings the token, at the places for metrics and logs."""

    places: tuple[str, ...] = ("/v1/metrics", "/v1/logs")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        known = self.headers.get("Authorization") == TOKEN
        known_place = self.path in self.places
        status = 404 if not known_place else 200 if known else 401
        self.send_response(status, None if known_place else "no \x1b[2J place")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what is printed is compared."""


class DoorForMetrics(Door):
    """Takes no logs, as Prometheus."""

    places = ("/v1/metrics",)


@contextmanager
def serving(
    tls: ssl.SSLContext | None = None, door: type[BaseHTTPRequestHandler] = Door
) -> Iterator[str]:
    """Host and port of a door."""
    server = ThreadingHTTPServer((LOOPBACK, 0), door)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"{LOOPBACK}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _a_plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*UNSET, *(each for each in os.environ if each.startswith("OTEL_"))):
        monkeypatch.delenv(name, raising=False)
    # Lines as they are, however long.
    monkeypatch.setenv("COLUMNS", "2000")


def sent_to(address: str, monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    for name, value in more.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)


def grave(text: str) -> list[tuple[str, str]]:
    """What is to be mended, each with what to do."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return [
        (line.removeprefix("! "), lines[n + 1].removeprefix("-> "))
        for n, line in enumerate(lines)
        if line.startswith("! ")
    ]


def row(text: str, name: str) -> str:
    """What is said of one thing."""
    found = [line for line in text.splitlines() if line.startswith(f"  {name} ")]
    assert len(found) == 1, found
    return found[0].removeprefix(f"  {name}").strip()


def test_an_endpoint_that_accepts_the_requests_passes(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as address:
        sent_to(f"http://{address}", monkeypatch, HEADERS="authorization=Bearer%20secret")
        printed = command("check")
    assert printed.code == 0
    accepted = f"to http://{address} (http/protobuf): {address} accepted an empty request"
    assert [row(printed.out, name) for name in ("metrics", "events")] == [accepted, accepted]
    assert printed.out.endswith("\nTelemetry would arrive: yes\n")


def test_a_wrong_token_is_reported_once_with_the_status_and_what_to_do(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as address:
        sent_to(f"http://{address}", monkeypatch, HEADERS="authorization=Bearer%20other")
        printed = command("check")
    assert printed.code == 1
    ((text, remedy),) = grave(printed.out)
    assert text.startswith(f"metrics and events: {address} not accepted: ")
    assert "401" in text
    assert "OTEL_EXPORTER_OTLP_HEADERS" in remedy
    assert printed.out.endswith("\nTelemetry would arrive: no, for 1 reason marked !\n")


def test_an_endpoint_for_metrics_alone_is_told_of_the_events(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(door=DoorForMetrics) as address:
        sent_to(f"http://{address}", monkeypatch, HEADERS="authorization=Bearer%20secret")
        printed = command("check")
        monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
        without_events = command("check")
    ((text, remedy),) = grave(printed.out)
    assert text.startswith(f"events: {address} not accepted: ")
    assert "404" in text
    assert "OTEL_LOGS_EXPORTER=none" in remedy
    assert (printed.code, without_events.code) == (1, 0)
    assert "OTEL_LOGS_EXPORTER=none: no events are sent" in without_events.out


def test_what_an_answer_says_is_printed_in_one_line_without_control_characters(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as address:
        sent_to(f"http://{address}/elsewhere", monkeypatch)
        printed = command("check")
    assert printed.code == 1
    assert "404" in grave(printed.out)[0][0]
    assert "\x1b" not in printed.out


def test_an_untrusted_certificate_is_reported_and_a_trusted_one_passes(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = made_certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(made.certificate, made.key)
    with serving(tls) as address:
        sent_to(f"https://{address}", monkeypatch, HEADERS="authorization=Bearer%20secret")
        stranger = command("check", "--timeout", "8")
        sent_to(f"https://{address}", monkeypatch, CERTIFICATE=str(made.certificate))
        friend = command("check")
    assert (stranger.code, friend.code) == (1, 0)
    assert "certificate verify failed" in grave(stranger.out)[0][0]
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in grave(stranger.out)[0][1]
    assert grave(friend.out) == []


def test_without_a_listener_the_endpoint_is_not_reached(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    sent_to(f"http://{LOOPBACK}:{port}", monkeypatch)
    printed = command("check", "--timeout", "0.5")
    assert printed.code == 1
    ((text, remedy),) = grave(printed.out)
    assert text.startswith(f"metrics and events: {LOOPBACK}:{port} not reached: ")
    assert remedy.startswith("start a Collector there")


def test_a_failure_over_grpc_is_reported_with_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as address:  # which speaks no gRPC
        sent_to(f"http://{address}", monkeypatch, PROTOCOL="grpc")
        # Another process: gRPC keeps threads and descriptors.
        done = subprocess.run(
            [sys.executable, "-m", "otel_celery_memory.cli", "check", "--timeout", "0.5"],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 1
    ((text, _),) = grave(done.stdout)
    assert text.startswith(f"metrics and events: {address} not accepted: ")
    assert "StatusCode.UNAVAILABLE" in text


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OTEL_SDK_DISABLED": "TRUE"}, "OTEL_SDK_DISABLED=true: nothing is measured"),
        ({"OTEL_METRICS_EXPORTER": "none"}, "OTEL_METRICS_EXPORTER=none: no metrics are sent"),
        (
            {"OTEL_METRICS_EXPORTER": "pigeon"},
            "OTEL_METRICS_EXPORTER=pigeon cannot be had, otlp is used: there are ",
        ),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"},
            "OTEL_EXPORTER_OTLP_PROTOCOL=smoke cannot be had, http/protobuf is used: there are ",
        ),
        (
            {"OTEL_CELERY_MEMORY_MAX_ADDED_LATENCY": "250ms"},
            "OTEL_CELERY_MEMORY_MAX_ADDED_LATENCY='250ms' cannot be used: it must be a number from "
            "0.01 to 60, in seconds: 0.25 for 250ms",
        ),
    ],
)
def test_what_keeps_telemetry_away_is_one_finding_and_exits_with_1_though_the_endpoint_answers(
    command: Command, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with serving() as address:
        sent_to(f"http://{address}", monkeypatch, HEADERS="authorization=Bearer%20secret")
        printed = command("check")
    assert printed.code == 1
    ((text, remedy),) = grave(printed.out)
    assert text.startswith(said)
    assert remedy


def test_what_telemetry_arrives_with_is_told_and_exits_with_0(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "TRACE": "off",
        "CAPTURE_DIRECTORY": "/nowhere/captures",
        "SITES_INCLUDE": "app/*",
    }.items():
        monkeypatch.setenv(f"OTEL_CELERY_MEMORY_{name}", value)
    with serving() as address:
        sent_to(f"http://{address}", monkeypatch, HEADERS="authorization=Bearer%20secret")
        printed = command("check")
    assert printed.code == 0
    for said in (
        "  - OTEL_CELERY_MEMORY_TRACE is no setting, and is ignored\n"
        "    -> did you mean OTEL_CELERY_MEMORY_TRACING?\n",
        "  - capture_directory=/nowhere/captures is not there, and neither is /nowhere: "
        "captures cannot be written\n    -> mkdir -p /nowhere\n",
        "  - sites_include: app/* matches no file: it is compared with whole paths, which begin "
        "with /\n    -> write */app/*\n",
    ):
        assert printed.out.count(said) == 1


def test_settings_are_shown_with_their_units(command: Command) -> None:
    out = command("check", "--timeout", "0.1").out
    assert [row(out, name) for name in ("max_added_latency", "frames", "sites_top")] == [
        "0.25 s",
        "1 frame",
        "10 sites",
    ]
    assert row(out, "remote_control") == "true"


def test_an_allocator_without_counters_is_said_with_what_to_do(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD", "libmimalloc.so")
    monkeypatch.setattr(abilities, "malloc_in_use", lambda: None)
    assert row(command("check", "--timeout", "0.1").out, "heap that a task keeps") == (
        "no: the allocator of LD_PRELOAD=libmimalloc.so has no counter that follows it. "
        "Use glibc's malloc, jemalloc or tcmalloc"
    )
