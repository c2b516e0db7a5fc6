"""What is known of one worker, from its records: no I/O, no clock, no OpenTelemetry SDK.

`worker_state` takes in records and judges which processes have ended; `processes` is one process of
it, `exits` says how one ended and who took its place, `totals` counts.
"""

__all__ = ["exits", "processes", "totals", "worker_state"]
