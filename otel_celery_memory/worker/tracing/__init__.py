"""Allocation tracing: which lines of code allocated what a run left behind.

`allocation_tracer` is the allocation tracing of one process: off, within a budget, or always on, by
the settings or a command. Within a budget, a sampler decides which runs are traced, by what they
cost and what the tasks have earned, and an alarm stops the tracing of a run that has cost enough.
Only `worker/measuring` calls it.
"""

__all__ = ["allocation_tracer"]
