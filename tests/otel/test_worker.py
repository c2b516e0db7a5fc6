"""A real worker whose telemetry, and whose options of ours, are in a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from demo.receiver import Receiver
from tests.otel.declaring import FILE, written
from tests.otel.grpc_receiver import grpc_receiver
from tests.worker.harness import ROOT, Start, Worker, measured, reporters_of, wait_measured

NOWHERE = "http://127.0.0.1:9"
BIN = Path(sys.executable).parent
DISTRO = BIN.parent / "distro"
"""Where ``make`` installs opentelemetry-distro: on its path a process behaves otherwise."""
WITH_DISTRO = {
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(DISTRO)]),
    "TEST_INSTRUMENT": "none",
    # Traces go nowhere; what is sent here is ours.
    "OTEL_TRACES_EXPORTER": "none",
}
INSTRUMENTED = [str(BIN / "opentelemetry-instrument"), str(BIN / "celery")]
OPTIONS = """
instrumentation/development:
  python:
    celery_memory:
      tracing: off
      frames: 7
"""


def ours(worker: Worker) -> list[str]:
    """Our lines of the worker's log, without what stands before them."""
    lines = worker.log().splitlines()
    return [
        line.partition("otel_celery_memory: ")[2] for line in lines if "otel_celery_memory:" in line
    ]


def test_a_worker_sends_as_the_file_says_with_our_options_of_it(
    start: Start, receiver: Receiver, tmp_path: Path
) -> None:
    path = written(tmp_path, receiver.endpoint, FILE + OPTIONS)
    environ = {
        "OTEL_CONFIG_FILE": path,
        "OTEL_METRICS_EXPORTER": "owl",
        "OTEL_CELERY_MEMORY_FRAMES": "3",
    }
    with start(arguments=["--concurrency=1"], environ=environ, endpoint=NOWHERE) as worker:
        for _ in range(3):
            worker.run("noop")
        wait_measured(receiver.received, {"noop": 3})
        worker.stop()
    resource = receiver.received.points[0].resource
    assert (resource["service.name"], resource["team"], resource["service.instance.id"]) == (
        "shop",
        "feeds",
        "w@test",
    )
    log = ours(worker)
    assert f": sent as {path} says by the reporter, process" in log[0]
    assert "; allocations are not traced" in log[0]
    endpoint = receiver.endpoint
    assert (
        f"as {path} says, metrics are sent to {endpoint}/v1/metrics (otlp_http), "
        f"events to {endpoint}/v1/logs (otlp_http); not repeated"
    ) in worker.log()
    assert not any("owl" in line for line in log)


def test_a_file_that_cannot_be_used_is_one_line_of_the_log_and_the_variables_are_used(
    start: Start, receiver: Receiver, tmp_path: Path
) -> None:
    path = written(tmp_path, NOWHERE, "file_format: '9.0'" + OPTIONS)
    with start(arguments=["--concurrency=1"], environ={"OTEL_CONFIG_FILE": path}) as worker:
        worker.run("noop")
        worker.stop()
    assert measured(receiver.received) == {"noop": 1}
    (line,) = [line for line in worker.log().splitlines() if "cannot be used" in line]
    assert "Unsupported file_format '9.0'" in line
    assert "; the OTEL_... variables are used" in line
    assert "Traceback" not in worker.log()


@pytest.mark.parametrize(
    "text", [f"{FILE}\ndisabled: true\n", FILE + OPTIONS.replace("frames: 7", "enabled: false")]
)
def test_a_file_may_switch_it_off(
    start: Start, receiver: Receiver, tmp_path: Path, text: str
) -> None:
    path = written(tmp_path, receiver.endpoint, text)
    with start(arguments=["--concurrency=1"], environ={"OTEL_CONFIG_FILE": path}) as worker:
        worker.run("noop")
        assert reporters_of(worker.pid) == []
        worker.stop()
    assert measured(receiver.received) == {}
    assert ours(worker) == [f"{path} switches it off: nothing is measured"]


def test_an_option_of_the_file_that_cannot_be_used_is_named_with_the_file(
    start: Start, receiver: Receiver, tmp_path: Path
) -> None:
    text = FILE + OPTIONS.replace("frames: 7", "frames: many\n      owls: 2")
    path = written(tmp_path, receiver.endpoint, text)
    # As OpenTelemetry's own program, which nobody can correct an error in, with the default.
    environ = {"OTEL_CONFIG_FILE": path, "TEST_INSTRUMENT": "none"}
    with start(arguments=["--concurrency=1"], environ=environ, prefix=INSTRUMENTED) as worker:
        worker.run("noop")
        worker.stop()
    assert measured(receiver.received) == {"noop": 1}
    assert (
        f"otel_celery_memory: frames in {path}='many' cannot be used: it must be an integer from "
        "1 to 25; the default 1 is used"
    ) in worker.log()
    assert "owls is not a setting and is ignored" in worker.log()


def test_with_the_distro_the_sdk_and_the_worker_s_reporter_read_one_file(
    start: Start, receiver: Receiver, tmp_path: Path
) -> None:
    assert DISTRO.is_dir()
    path = written(tmp_path, receiver.endpoint, FILE + OPTIONS)
    environ = {**WITH_DISTRO, "OTEL_CONFIG_FILE": path}
    with start(
        arguments=["--concurrency=1"], environ=environ, prefix=INSTRUMENTED, endpoint=NOWHERE
    ) as worker:
        for _ in range(3):
            worker.run("noop")
        wait_measured(receiver.received, {"noop": 3})
        worker.stop()
    assert "; allocations are not traced" in ours(worker)[0]
    assert "unusable" not in worker.log()


def test_with_the_distro_telemetry_goes_over_grpc_as_that_of_the_process_does(
    start: Start, receiver: Receiver
) -> None:
    assert DISTRO.is_dir()
    with (
        grpc_receiver(receiver) as endpoint,
        start(
            arguments=["--concurrency=1"],
            environ=WITH_DISTRO,
            prefix=INSTRUMENTED,
            endpoint=endpoint,
        ) as worker,
    ):
        worker.run("noop")
        wait_measured(receiver.received, {"noop": 1})
        worker.stop()
    assert f": sent to {endpoint} (grpc) every 0.5 s by the reporter" in ours(worker)[0]


def test_a_protocol_at_the_other_one_s_port_is_said_when_a_worker_starts(
    start: Start,
) -> None:
    assert DISTRO.is_dir()
    endpoint = "http://127.0.0.1:4318"
    environ = {**WITH_DISTRO, "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "otlp"}
    with start(
        arguments=["--concurrency=1"], environ=environ, prefix=INSTRUMENTED, endpoint=endpoint
    ) as worker:
        worker.stop()
    assert (
        f"telemetry goes to {endpoint} by grpc, but 4318 is that of http/protobuf; "
        "OTEL_EXPORTER_OTLP_PROTOCOL chooses, which opentelemetry-distro sets to grpc if it is "
        "not set"
    ) in ours(worker)
