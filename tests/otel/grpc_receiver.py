"""A receiver of OTLP over gRPC that keeps what it gets, as `demo.receiver` does over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)

from demo.receiver import Receiver


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, kept: Receiver) -> None:
        self._kept = kept

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 (gRPC's)
        self._kept._keep("/v1/metrics", request.SerializeToString())
        return metrics_service_pb2.ExportMetricsServiceResponse()


class _Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self, kept: Receiver) -> None:
        self._kept = kept

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 (gRPC's)
        self._kept._keep("/v1/logs", request.SerializeToString())
        return logs_service_pb2.ExportLogsServiceResponse()


@contextmanager
def grpc_receiver(kept: Receiver) -> Iterator[str]:
    """The endpoint of a receiver that keeps all in ``kept.received``."""
    server = grpc.server(ThreadPoolExecutor(2))
    # Generated, without types.
    add_metrics: Any = metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server
    add_logs: Any = logs_service_pb2_grpc.add_LogsServiceServicer_to_server
    add_metrics(_Metrics(kept), server)
    add_logs(_Logs(kept), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(1).wait()
