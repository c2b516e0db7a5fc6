"""Records become OpenTelemetry metrics and log events; the only user of the SDK.

`metrics` has the instruments, `events` the log events, `site_gauges` the sites of the latest
ranking, `leak_gauges` the verdicts. `pipeline` opens SDK providers of our own: `providers` makes
them of the variables, `declared` of a file of configuration. `retry_queue` keeps events until an
endpoint acknowledges them. `export_checkpoints`, which only these import, follows which metrics an
endpoint has acknowledged. `profiles` sends a capture as a profile.
"""

__all__ = [
    "declared",
    "events",
    "leak_gauges",
    "metrics",
    "pipeline",
    "profiles",
    "providers",
    "retry_queue",
    "site_gauges",
]
