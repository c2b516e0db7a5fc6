"""The local view: telemetry of workers received on this machine, and shown as a page or a file.

The commands enter through `serving`, which listens for OTLP and for browsers. `receiver` and
`grpc_receiver` hand what comes to `intake`, of which `otlp` makes plain values; `store` keeps them
within bounds, `snapshot` makes JSON of what is known at a moment, and `page` and `application` show
it. The room needs the extra ``view``; it imports nothing of a worker.
"""

__all__ = ["serving"]
