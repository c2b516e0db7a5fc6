"""Numbers at the ends of 64 bits, which only forged records have, are clamped and exported."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from otel_celery_memory import conventions as c
from otel_celery_memory.captures.format import INT64_MAX, dump_capture, load_capture
from otel_celery_memory.captures.model import Capture
from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.ipc.records import ProcessUp, WindowKind
from otel_celery_memory.reporter.emitter import Emitter
from tests.telemetry.payload import Telemetry, in_memory
from tests.telemetry.test_emitter import emitter_on
from tests.unit.examples import SPAN, finished, site, window
from tests.unit.reporter.test_record_properties import exported

SMALLEST, LARGEST = -(2**63), 2**63 - 1


@pytest.fixture(params=[True, False], ids=["our histograms", "the SDK's"])
def telemetry(request: pytest.FixtureRequest) -> Iterator[Telemetry]:
    made = in_memory(own_histograms=request.param)
    yield made
    made.meters.shutdown()


@pytest.fixture
def emitter(telemetry: Telemetry) -> Emitter:
    return emitter_on(telemetry)


def test_a_change_that_has_no_positive_of_64_bits_does_not_stop_the_export(
    emitter: Emitter, telemetry: Telemetry
) -> None:
    emitter.apply(finished(delta_bytes=SMALLEST, traced_delta_bytes=SMALLEST, span=SPAN))
    assert exported(telemetry) == []
    (point,) = telemetry.metrics()[c.RSS_DELTA.name]["points"]
    assert (point["max"], point["attributes"][c.DIRECTION]) == (LARGEST, c.SHRINK)


def test_a_sum_of_more_than_64_bits_is_exported_as_the_largest_number(
    emitter: Emitter, telemetry: Telemetry
) -> None:
    emitter.apply(finished(pid=7, start_bytes=LARGEST, delta_bytes=1, peak_bytes=2))
    emitter.state.gone(7, 5)
    for end in emitter.state.classify_ended(5, all_now=True):
        emitter.ended(end)
    assert exported(telemetry) == []
    (event,) = telemetry.events()
    assert event["attributes"][c.PROCESS_RSS] == LARGEST


def captured(emitter: Emitter) -> Capture:
    taken = emitter.captures.complete([], all_now=True)
    assert taken is not None
    return taken.capture


def test_a_capture_of_forged_windows_can_be_read_again(emitter: Emitter) -> None:
    emitter.captures.begin(Commands(capture=1, runs=1), "budget")
    forged = site(LARGEST, -5, blocks=SMALLEST, stack=f"a.py:{10**30}", capture=1)
    for _ in range(2):
        emitter.apply(window(runs=-1, other_bytes=LARGEST, other_blocks=SMALLEST, capture=1))
        emitter.apply(forged)
    capture = captured(emitter)
    assert load_capture(dump_capture(capture)) == capture
    assert capture.runs == {"app.task": 0}
    assert (capture.other_bytes, capture.other_blocks) == (INT64_MAX, -INT64_MAX)
    (found,) = capture.sites
    assert (found.line, found.stack) == (0, (("a.py", INT64_MAX),))
    assert (found.size_bytes, found.blocks) == (INT64_MAX, -INT64_MAX)


@pytest.mark.parametrize(
    ("pid", "rss_bytes", "carried"),
    [(-1, SMALLEST, (0, 0)), (LARGEST, LARGEST, (INT64_MAX, INT64_MAX))],
)
def test_a_capture_by_a_forged_process_can_be_read_again(
    emitter: Emitter, pid: int, rss_bytes: int, carried: tuple[int, int]
) -> None:
    emitter.captures.begin(Commands(capture=1, runs=1), "budget")
    emitter.apply(ProcessUp(pid, 0, 0, rss_bytes))
    emitter.apply(window(pid, capture=1))
    capture = captured(emitter)
    assert load_capture(dump_capture(capture)) == capture
    (process,) = capture.processes
    assert (process.pid, process.rss_bytes) == carried


def test_windows_of_kinds_that_there_are_not_are_no_part_of_a_capture(emitter: Emitter) -> None:
    emitter.captures.begin(Commands(capture=1, runs=1), "budget")
    for kind in (WindowKind.PROCESS, 4, LARGEST, SMALLEST):
        emitter.apply(window(capture=1)._replace(kind=kind))
        emitter.apply(site(5, capture=1)._replace(kind=kind))
    capture = captured(emitter)
    assert (capture.runs, capture.sites) == ({}, ())
