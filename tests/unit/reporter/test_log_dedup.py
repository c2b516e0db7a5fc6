"""A failure of the reporter is logged once in ten minutes, with the number of repetitions."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_celery_memory.reporter.service import RepetitionFilter, set_up_logging
from tests.unit.fakes import FakeClock

EXPORTER = "opentelemetry.exporter.otlp.proto.http.metric_exporter"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(5.0)


@pytest.fixture
def passes(clock: FakeClock) -> RepetitionFilter:
    return RepetitionFilter(clock)


@pytest.fixture
def root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()  # what is replaced is closed, and these are pytest's
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def line(
    message: str, *args: object, name: str = EXPORTER, level: int = logging.ERROR
) -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 1, message, args, None)


def test_the_first_line_passes_and_says_that_it_is_not_repeated(passes: RepetitionFilter) -> None:
    record = line("Failed to export to %s,\nretrying", "http://gone:4318")
    assert passes.filter(record) is True
    assert record.getMessage() == (
        "Failed to export to http://gone:4318, retrying; not repeated for 10 minutes"
    )


@pytest.mark.parametrize("module", ["losses", "leak_log"])
def test_every_loss_and_every_leak_passes_as_it_is(passes: RepetitionFilter, module: str) -> None:
    name = f"otel_celery_memory.reporter.{module}"
    records = [line(f"loss {n}", name=name) for n in range(3)]
    assert [passes.filter(record) for record in records] == [True] * 3
    assert [record.getMessage() for record in records] == ["loss 0", "loss 1", "loss 2"]


def test_more_of_one_family_are_suppressed_and_counted(
    passes: RepetitionFilter, clock: FakeClock
) -> None:
    passed = []
    for second in range(1_300):
        record = line(f"failure {second}", name=f"opentelemetry.part{second % 3}.exporter")
        if passes.filter(record):
            passed.append(record.getMessage())
        clock.move(1)
    assert passed == [
        "failure 0; not repeated for 10 minutes",
        "failure 600 (599 more like it before); not repeated for 10 minutes",
        "failure 1200 (599 more like it before); not repeated for 10 minutes",
    ]


def test_other_families_have_lines_of_their_own_whatever_the_level(
    passes: RepetitionFilter,
) -> None:
    lines = [
        line("a", name="opentelemetry.exporter.otlp"),
        line("b", name="opentelemetry.sdk._shared_internal.export", level=logging.WARNING),
        line("c", name="urllib3.connectionpool"),
        line("d", name="otel_celery_memory.reporter"),
        line("e", name="otel_celery_memory.reporter"),
    ]
    assert [passes.filter(each) for each in lines] == [True, False, True, True, False]


def test_an_exception_is_in_the_line_without_its_traceback(
    passes: RepetitionFilter,
) -> None:
    record = line("Exception while exporting")
    try:
        raise ConnectionError("refused")
    except ConnectionError:
        record.exc_info = sys.exc_info()
    passes.filter(record)
    assert logging.Formatter("%(message)s").format(record) == (
        "Exception while exporting: ConnectionError('refused'); not repeated for 10 minutes"
    )


def test_a_long_line_is_cut(passes: RepetitionFilter) -> None:
    record = line("x" * 10_000)
    passes.filter(record)
    assert record.getMessage() == "x" * 500 + "; not repeated for 10 minutes"


def test_a_line_whose_arguments_do_not_fit_raises_nothing(
    passes: RepetitionFilter,
) -> None:
    assert passes.filter(line("%d items", "many")) is True


@pytest.mark.usefixtures("root_as_before")
def test_the_reporter_writes_warnings_and_worse_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up_logging()
    exporter = logging.getLogger(EXPORTER)
    exporter.info("fine")
    exporter.warning("slow")
    exporter.warning("slower")
    written = capsys.readouterr()
    assert written.out == ""
    stamp, _, rest = written.err.partition(": ")
    assert stamp.startswith("[")
    assert rest == "WARNING/memory reporter] slow; not repeated for 10 minutes\n"


@pytest.mark.usefixtures("root_as_before")
def test_where_the_worker_logs_to_a_file_the_reporter_does_and_follows_its_rotation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "worker.log"
    log.write_text("of the worker\n")
    set_up_logging(str(log))
    logging.getLogger("one").warning("before")
    log.rename(tmp_path / "worker.log.1")
    logging.getLogger("two").warning("after")
    before, after = (tmp_path / "worker.log.1").read_text(), log.read_text()
    assert before.startswith("of the worker\n[")
    assert before.endswith("WARNING/memory reporter] before; not repeated for 10 minutes\n")
    assert after.endswith("WARNING/memory reporter] after; not repeated for 10 minutes\n")
    assert len(after.splitlines()) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("root_as_before")
def test_a_log_file_that_cannot_be_opened_or_is_gone_raises_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging(str(tmp_path / "none" / "worker.log"))
    logging.getLogger("one").warning("to standard error")
    assert "to standard error" in capsys.readouterr().err
    directory = tmp_path / "some"
    directory.mkdir()
    set_up_logging(str(directory / "worker.log"))
    (directory / "worker.log").unlink()
    directory.rmdir()
    logging.getLogger("two").warning("into nothing")
    assert "FileNotFoundError" in capsys.readouterr().err
