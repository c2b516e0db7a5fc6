"""The file of `OTEL_CONFIG_FILE` as a process reads it that does not export: our options alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from otel_celery_memory.config_file import ConfigFileError, config_file, own_options

PLAIN = "file_format: '1.0'\nmeter_provider: {readers: []}\n"


def test_a_variable_that_is_empty_names_no_file() -> None:
    assert config_file({"OTEL_CONFIG_FILE": "  "}) == config_file({}) == ""
    assert own_options({}) == {}


def test_a_file_without_a_word_for_us_costs_no_sdk(tmp_path: Path) -> None:
    path = tmp_path / "otel.yaml"
    path.write_text(PLAIN)
    script = (
        "import sys\nfrom otel_celery_memory.config_file import own_options\n"
        f"print(own_options({{'OTEL_CONFIG_FILE': {str(path)!r}}}))\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.splitlines() == ["{}", "[]"]


def test_where_nothing_can_read_it_a_file_with_options_of_ours_is_an_error_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.configuration", None)
    path = tmp_path / "otel.yaml"
    path.write_text("instrumentation/development: {python: {celery_memory: {frames: 3}}}")
    with pytest.raises(ConfigFileError) as raised:
        own_options({"OTEL_CONFIG_FILE": str(path)})
    assert str(raised.value).startswith(
        f"OTEL_CONFIG_FILE={path} cannot be used: opentelemetry-configuration is not installed, or "
        "does not go with this OpenTelemetry (1.45 or later is needed): "
    )
