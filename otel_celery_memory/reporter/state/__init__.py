"""The state of one worker, derived from its records: no I/O, no clock, no OpenTelemetry SDK.

`worker_state` applies records and classifies how processes ended. `processes` is the state of one
process, `exits` has the rules for an end and its successor, `totals` the counts: what samples say
(`left_behind`) within what the heaps have grown by (`heap_levels`).
"""

__all__ = ["exits", "processes", "totals", "worker_state"]
