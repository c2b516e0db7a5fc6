"""Any records in any order, as a task could forge them, cause at most wrong numbers.

They pass a whole reporter, up to the bytes of OTLP's own encoder, which drops a whole export for
one number out of range.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics

from otel_celery_memory.captures.format import dump_capture, load_capture
from otel_celery_memory.captures.model import CapturedProcess
from otel_celery_memory.ipc.codec import encode, records_in
from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.ipc.records import MAIN_SLOT, ProcessUp, Record, Site, SitesWindow
from otel_celery_memory.reporter.limits import Usage
from otel_celery_memory.reporter.state.worker_state import InFlightTasks
from tests.telemetry.payload import Telemetry, in_memory
from tests.telemetry.test_emitter import emitter_on
from tests.unit.arbitrary import RECORDS
from tests.unit.fakes import FakeInFlightTable

MAIN = 1
PIDS = st.sampled_from([-1, 0, MAIN, 2, 3, 2**31, 2**63 - 1])
NOW_NS = 10**18


def _of(record: Record, pid: int) -> Record:
    """As it arrives: of this process, with strings that are clipped and all UTF-8."""
    if isinstance(record, (SitesWindow, Site)):
        # Every second of them is of a capture that is being taken.
        capture, kind = record.capture % 2, record.kind % 5
        record = record._replace(capture=capture, kind=kind)
    (arrived,) = records_in(encode(record))
    return type(record)(pid, *arrived[1:])


STREAMS = st.lists(st.builds(_of, RECORDS, PIDS), max_size=8)


class Complaints(logging.Handler):
    """Log lines of the SDK about values that it leaves out."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def exported(telemetry: Telemetry) -> list[str]:
    """What an exporter does before it sends; raises where it would send nothing."""
    sdk = logging.getLogger("opentelemetry")
    complaints = Complaints()
    sdk.addHandler(complaints)
    try:
        telemetry.metrics()
        encode_metrics(telemetry.exporter.exported[-1]).SerializeToString()
        encode_logs(telemetry.log_exporter.get_finished_logs()).SerializeToString()
    finally:
        sdk.removeHandler(complaints)
    return complaints.lines


@settings(max_examples=settings().max_examples // 2)
@example(records=[SitesWindow(-1, 0, 0, 0, 0, 1, 0, 0, 0, "")], gone=[], slots=[])
@given(records=STREAMS, gone=st.lists(PIDS, max_size=3), slots=STREAMS)
def test_any_records_are_applied_and_their_telemetry_can_be_exported(
    records: Sequence[Record], gone: list[int], slots: Sequence[Record]
) -> None:
    telemetry = in_memory(own_histograms=True)
    emitter = emitter_on(telemetry)
    frames = b"".join(map(encode, slots))
    in_flight = InFlightTasks(FakeInFlightTable(dict.fromkeys(range(-1, 4), frames)), emitter)
    emitter.apply(ProcessUp(MAIN, 5, MAIN_SLOT, 7))
    emitter.captures.begin(Commands("always", 1, 1, False, 1e9, 1.0), "always")
    for record in records:
        emitter.apply(record)
    in_flight.read()
    emitter.emit_pressure(Usage("host", None, 9, 10), NOW_NS)
    taken = emitter.captures.complete([CapturedProcess("0", 2, 5)], all_now=True)
    assert taken is not None
    assert load_capture(dump_capture(taken.capture)) == taken.capture
    emitter.captures.view()
    emitter.emit_sites(1.0, NOW_NS)
    telemetry.metrics()
    for pid in gone:
        emitter.state.gone(pid, NOW_NS)
    for end in emitter.state.classify_ended(NOW_NS, all_now=True):
        emitter.ended(end)
    emitter.emit_sites(1.0, NOW_NS)
    assert exported(telemetry) == []
    telemetry.meters.shutdown()
