"""The command `check` sends one empty request as the worker would, and prints the answer."""

from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.processes import LOOPBACK, free_ports
from tests.stack.certificates import made_certificate
from tests.unit.cli.running import Command

TOKEN = "Bearer secret"
UNSET = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY")


class Door(BaseHTTPRequestHandler):
    """Lets in who brings the token, at the place for metrics."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        known = self.headers.get("Authorization") == TOKEN
        known_place = self.path == "/v1/metrics"
        status = 404 if not known_place else 200 if known else 401
        self.send_response(status, None if known_place else "no \x1b[2J place")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what is printed is compared."""


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Host and port of a door."""
    server = ThreadingHTTPServer((LOOPBACK, 0), Door)
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
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)


def sent_to(address: str, monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    for name, value in more.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)


def last_line(text: str) -> str:
    return " ".join(text.splitlines()[-1].split())


def test_an_endpoint_that_accepts_the_request_passes(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as address:
        sent_to(f"http://{address}", monkeypatch, HEADERS="authorization=Bearer%20secret")
        printed = command("check")
    assert (printed.code, last_line(printed.out)) == (0, f"{address} accepted an empty request")


def test_a_wrong_token_is_reported_with_the_status(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as address:
        sent_to(f"http://{address}", monkeypatch, HEADERS="authorization=Bearer%20other")
        printed = command("check")
    assert printed.code == 1
    assert last_line(printed.out).startswith(f"{address} not accepted: ")
    assert "401" in last_line(printed.out)


def test_what_an_answer_says_is_printed_in_one_line_without_control_characters(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as address:
        sent_to(f"http://{address}/elsewhere", monkeypatch)
        printed = command("check")
    assert printed.code == 1
    assert "404" in last_line(printed.out)
    assert "\x1b" not in printed.out


def test_an_untrusted_certificate_is_reported_and_a_trusted_one_passes(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = made_certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(made.certificate, made.key)
    with serving(tls) as address:
        sent_to(f"https://{address}", monkeypatch, HEADERS="authorization=Bearer%20secret")
        stranger = command("check")
        sent_to(f"https://{address}", monkeypatch, CERTIFICATE=str(made.certificate))
        friend = command("check")
    assert stranger.code == 1
    assert "not accepted: " in last_line(stranger.out)
    assert "certificate verify failed" in last_line(stranger.out)
    assert (friend.code, last_line(friend.out)) == (0, f"{address} accepted an empty request")


def test_without_a_listener_the_endpoint_is_not_reached(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    sent_to(f"http://{LOOPBACK}:{port}", monkeypatch)
    printed = command("check", "--timeout", "0.5")
    assert printed.code == 1
    assert last_line(printed.out).startswith(f"{LOOPBACK}:{port} not reached: ")


def test_a_failure_over_grpc_is_reported_with_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as address:  # which speaks no gRPC
        sent_to(f"http://{address}", monkeypatch, PROTOCOL="grpc")
        # Another process: gRPC keeps threads and descriptors.
        done = subprocess.run(
            [sys.executable, "-m", "otel_celery_memory.cli", "check", "--timeout", "0.5"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert last_line(done.stdout).startswith(f"{address} not accepted: ")
    assert "StatusCode.UNAVAILABLE" in last_line(done.stdout)
