"""The command `check` tries what the file declares."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.receiver import Receiver
from tests.otel.declaring import FILE, written
from tests.unit.cli.conftest import command
from tests.unit.cli.running import Command

__all__ = ["command"]
OPTIONS = "instrumentation/development:\n  python:\n    celery_memory:\n      frames: 7\n"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_each_exporter_of_the_file_is_tried_and_our_options_are_shown(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Receiver() as receiver:
        path = written(tmp_path, receiver.endpoint, FILE + OPTIONS)
        monkeypatch.setenv("OTEL_CONFIG_FILE", path)
        printed = command("check")
        said = " ".join(printed.out.split())
        assert (printed.code, receiver.received.requests) == (0, 2)
        assert f"metrics to {receiver.endpoint}/v1/metrics (otlp_http), accepted" in said
        assert f"events to {receiver.endpoint}/v1/logs (otlp_http), accepted" in said
        assert "frames 7 frames" in said


def test_what_does_not_take_it_is_to_be_mended(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Receiver(404) as receiver:
        monkeypatch.setenv("OTEL_CONFIG_FILE", written(tmp_path, receiver.endpoint))
        printed = command("check")
        said = " ".join(printed.out.split())
    assert printed.code == 1
    assert f"! metrics: {receiver.endpoint}/v1/metrics (otlp_http) not accepted: " in said


def test_a_file_without_metrics_and_one_that_cannot_be_used_are_to_be_mended(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTEL_CONFIG_FILE", written(tmp_path, "", "file_format: '1.0'"))
    printed = command("check")
    assert printed.code == 1
    assert "no metrics are sent" in " ".join(printed.out.split())
    monkeypatch.setenv("OTEL_CONFIG_FILE", written(tmp_path, "", "file_format: '9.0'"))
    printed = command("check")
    assert printed.code == 1
    assert "cannot be used: Unsupported file_format '9.0'" in " ".join(printed.out.split())
