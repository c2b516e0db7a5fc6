"""The commands `view` and `report` listen, serve and write, and say what is in the way."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_celery_memory.cli import receiving
from otel_celery_memory.view.serving import Address
from tests.processes import LOOPBACK, answers, free_ports, get, running, wait_until
from tests.unit.cli.running import Command

COMMAND = [sys.executable, "-m", "otel_celery_memory.cli"]


def test_a_report_in_which_nothing_came_says_so_and_fails(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    words = ["report", "--for", "0.2s", "--otlp-port", "0", "--output", str(file)]
    done = subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1
    assert "No worker sent anything" in done.stdout
    assert done.stderr == ""
    assert '"workers":[]' in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_view_that_is_interrupted_saves_what_it_has(
    tmp_path: Path, number: signal.Signals
) -> None:
    page, otlp = free_ports(2)
    file = tmp_path / "report.html"
    words = [*("view", "--port", str(page), "--otlp-port", str(otlp)), *("--save", str(file))]
    with running("view", [*COMMAND, *words], tmp_path) as server:
        server.wait_ready(lambda: answers(f"http://{LOOPBACK}:{page}/"))
        text = server.log.read_text()
        assert f"http://{LOOPBACK}:{page}/" in text
        assert f"OTEL_EXPORTER_OTLP_ENDPOINT=http://{LOOPBACK}:{otlp}" in text
        assert not answers(f"http://{LOOPBACK}:{otlp}/"), "the page is not at the other port"
        os.kill(server.process.pid, number)
        assert server.process.wait(30) == 0
    assert "<title>" in file.read_text()
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("flag", ["--port", "--otlp-port"])
def test_a_port_that_is_taken_is_told_with_the_flag_that_takes_another_one(
    command: Command, flag: str
) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        number = taken.getsockname()[1]
        other = {"--port": "--otlp-port", "--otlp-port": "--port"}[flag]
        done = command("view", flag, str(number), other, "0")
    assert done.code == 1
    assert done.err.startswith(
        f"otel-celery-memory: cannot listen at {LOOPBACK}, port {number}: Address already in use"
    )
    assert f"(pid {os.getpid()})" in done.err
    assert done.err.endswith(f"; {flag} takes another one\n")


def test_a_port_of_grpc_that_was_asked_for_and_is_taken_is_told_like_the_others(
    command: Command,
) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        number = taken.getsockname()[1]
        done = command("view", "--grpc-port", str(number), "--otlp-port", "0", "--port", "0")
    assert done.code == 1
    assert f"cannot listen at {LOOPBACK}, port {number}: Address already in use" in done.err
    assert done.err.endswith("; --grpc-port takes another one\n")


def test_the_standard_port_of_grpc_is_used_where_it_is_free_and_otherwise_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    otlp = Address(LOOPBACK, receiving.OTLP_PORT)
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        number = taken.getsockname()[1]
        monkeypatch.setattr(receiving, "GRPC_PORT", number)
        address, said = receiving.listen_for_grpc(LOOPBACK, None, otlp)
        assert address is None
        assert said.startswith(f"Not over gRPC: cannot listen at {LOOPBACK}, port {number}: ")
        assert said.endswith("; --grpc-port takes another one.")
    address, said = receiving.listen_for_grpc(LOOPBACK, None, otlp)
    assert address == Address(LOOPBACK, number)
    assert said.endswith("with OTEL_EXPORTER_OTLP_PROTOCOL=grpc")


def test_beside_a_port_that_was_chosen_nothing_is_received_over_grpc_unless_asked_for() -> None:
    otlp = Address(LOOPBACK, 5_000)
    assert receiving.listen_for_grpc(LOOPBACK, None, otlp) == (None, "")
    address, _ = receiving.listen_for_grpc(LOOPBACK, 0, otlp)
    assert address is not None
    assert address.port > 0


def test_without_grpcio_the_view_receives_over_http_and_says_what_is_missing_if_asked(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: Callable[..., object] = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "grpc" else found(name)
    )
    otlp = Address(LOOPBACK, receiving.OTLP_PORT)
    assert receiving.listen_for_grpc(LOOPBACK, None, otlp) == (None, "")
    done = command("view", "--grpc-port", "0", "--otlp-port", "0", "--port", "0")
    assert done.code == 2
    assert done.err == "otel-celery-memory: grpcio is not installed: pip install grpcio\n"


def test_a_host_that_is_not_this_machine_s_is_told(command: Command) -> None:
    done = command("report", *("--for", "1s", "-o", "r.html", "--otlp-host", "192.0.2.1"))
    assert done.code == 1
    assert "cannot listen at 192.0.2.1" in done.err


@pytest.mark.parametrize("time", ["0s", "-1s", "ten", "25h", "1d", ""])
def test_a_time_that_is_none_is_refused(command: Command, time: str) -> None:
    done = command("report", f"--for={time}", "-o", "r.html")
    assert done.code == 2
    assert "such as 90s, 10m or 1h" in done.err


@pytest.mark.parametrize("place", ["no/such/report.html", "."])
def test_a_file_that_cannot_be_written_is_told_before_anything_is_received(
    command: Command, place: str
) -> None:
    done = command("report", "--for", "10m", "-o", place, "--otlp-port", "0")
    assert done.code == 2
    assert "cannot be written" in done.err


def test_without_its_libraries_the_command_says_what_to_install(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: Callable[..., object] = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name)
    )
    done = command("view")
    assert done.code == 2
    assert done.err == (
        "otel-celery-memory: uvicorn is not installed: pip install 'otel-celery-memory[view]'\n"
    )


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *(("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("localhost", True)),
        *(("0.0.0.0", False), ("::", False), ("192.0.2.7", False), ("box.example", False)),
    ],
)
def test_what_only_this_machine_reaches_answers_to_its_own_names_alone(
    host: str, loopback: bool
) -> None:
    address = Address(host, 4380)
    assert address.is_loopback is loopback
    assert ("*" in address.names) is not loopback


def test_a_view_that_other_machines_reach_shows_no_source_and_says_that_it_is_open(
    tmp_path: Path,
) -> None:
    page, otlp = free_ports(2)
    words = ["view", "--host", "0.0.0.0", "--port", str(page), "--otlp-port", str(otlp)]
    with running("view", [*COMMAND, *words], tmp_path) as server:
        url = f"http://{LOOPBACK}:{page}/snapshot.json"
        wait_until("it answers", lambda: answers(url), 60)
        assert '"workers":[]' in get(url)
        assert "Other machines can open the page" in server.log.read_text()
