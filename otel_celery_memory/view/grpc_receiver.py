"""The receiver of OTLP over gRPC. grpcio is there where OpenTelemetry's exporter for it is.

Bounded as the one over HTTP: no message of more than `BODY_BYTES_MAX`, packed or unpacked, and at
most `AT_ONCE_MAX` requests that are held. What stands still is ended with its connection, which
exporters open again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from otel_celery_memory.view.intake import BODY_BYTES_MAX, Intake
from otel_celery_memory.view.otlp import MalformedError

# gRPC's own log says in the terminal what is answered, or told in words, here.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
import grpc

AT_ONCE_MAX = 8
"""Requests that are held at the same time."""
_CONNECTION_S, _GRACE_S = 300, 30
_SERVICE = "opentelemetry.proto.collector.{}Service"


def grpc_receiver(intake: Intake, connection_s: float = _CONNECTION_S) -> Any:
    """A server of `grpc.aio` that is not started and listens nowhere yet. Call it on the loop.

    ``connection_s`` is how long a connection is used before it is closed in good order.
    """
    server = grpc.aio.server(
        options=[
            # A port that another program has must be an error, and not shared.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", BODY_BYTES_MAX),
            ("grpc.max_concurrent_streams", AT_ONCE_MAX),
            ("grpc.max_connection_age_ms", int(connection_s * 1_000)),
            ("grpc.max_connection_age_grace_ms", _GRACE_S * 1_000),
        ],
        maximum_concurrent_rpcs=AT_ONCE_MAX,
    )
    taken_by = {
        "metrics.v1.Metrics": intake.metrics,
        "logs.v1.Logs": intake.logs,
        "trace.v1.Trace": intake.traces,
    }
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                _SERVICE.format(name),
                {"Export": grpc.unary_unary_rpc_method_handler(_export(take))},
            )
            for name, take in taken_by.items()
        ]
    )
    return server


def _export(take: Callable[[bytes], None]) -> Callable[[bytes, Any], Any]:
    async def export(body: bytes, context: Any) -> bytes:
        try:
            take(body)
        except MalformedError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no request of OTLP: {error}")
        return b""  # of each of the services the response that all was taken

    return export
