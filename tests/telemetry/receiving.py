"""A real receiver that keeps whole requests, and what is sent to it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from demo.receiver import Receiver
from otel_celery_memory.conventions import BUCKET_BOUNDS_BYTES
from otel_celery_memory.telemetry.pipeline import Pipeline


class RawReceiver(Receiver):
    """Keeps the requests themselves as well."""

    def __init__(self) -> None:
        super().__init__()
        self.metric_requests: list[Any] = []

    def _keep(self, path: str, body: bytes) -> None:
        super()._keep(path, body)
        if path == "/v1/metrics":
            self.metric_requests.append(ExportMetricsServiceRequest.FromString(body))

    def scope(self) -> Any:
        """The scope of the last request, which has just one."""
        ((scope,),) = (of.scope_metrics for of in self.metric_requests[-1].resource_metrics)
        return scope

    def metric(self, name: str) -> Any:
        """A metric of the last request, which has it once."""
        (found,) = (metric for metric in self.scope().metrics if metric.name == name)
        return found


def in_a_process(code: str, **variables: str) -> str:
    """What Python code writes: gRPC and the console exporters keep what they began with."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout


USE = """
from otel_celery_memory.telemetry.pipeline import open_pipeline
from tests.telemetry.receiving import use
use(open_pipeline("celery@box", 3600.0))
"""


def use(pipeline: Pipeline) -> None:
    """One value of each sort goes in, and all of it out."""
    pipeline.meter.create_counter("count").add(3)
    make = pipeline.histogram
    histogram = make("size", explicit_bucket_boundaries_advisory=list(BUCKET_BOUNDS_BYTES))
    histogram.record(100_000, {"celery.task.name": "a"})
    pipeline.logger.emit(event_name="event", body="text", attributes={"n": 1})
    pipeline.shutdown()
