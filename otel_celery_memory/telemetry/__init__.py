"""Records become OpenTelemetry metrics and log events; the only user of the SDK.

`metrics` has the instruments, `events` the log events, `site_gauges` the sites of the latest
ranking. `pipeline` opens SDK providers of our own. `retry_queue` keeps events until an endpoint
acknowledges them. `export_checkpoints`, which only `pipeline` imports, follows which metrics an
endpoint has acknowledged.
"""

__all__ = ["events", "metrics", "pipeline", "retry_queue", "site_gauges"]
