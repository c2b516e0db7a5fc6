"""Records become OpenTelemetry metrics and log events; the only user of the SDK.

`metrics` and `events` are the instruments and the log events, `site_gauges` the sites of the latest
ranking. `pipeline` opens SDK providers of our
own. While no endpoint takes events they wait in `retry_queue`; which metrics an endpoint has taken
is followed inside.
"""

__all__ = ["events", "metrics", "pipeline", "retry_queue", "site_gauges"]
