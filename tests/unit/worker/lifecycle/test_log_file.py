"""The path of the worker's log file that its reporter gets."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from otel_celery_memory.worker.lifecycle.prefork import log_file_of


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (None, ""),
        ("", ""),
        (io.StringIO(), ""),
        ("/var/log/worker.log", "/var/log/worker.log"),
        # The main process has no index; its children's files are theirs.
        ("/var/log/%n%I.log", "/var/log/w.log"),
        ("%p.log", f"{Path.cwd()}/w@box.log"),
    ],
)
def test_it_is_absolute_and_named_as_celery_names_it_for_the_main_process(
    named: object, expected: str
) -> None:
    assert log_file_of(SimpleNamespace(logfile=named, hostname="w@box")) == expected


def test_a_worker_that_has_none_logs_to_none() -> None:
    assert log_file_of(SimpleNamespace(hostname="w@box")) == ""
