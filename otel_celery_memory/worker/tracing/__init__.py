"""Allocation tracing: which lines of code allocated what a run left behind.

`allocation_tracer` is one process's tracing: off, within a budget, or always on, as the settings
or a person want it now. Within a budget, a sampler decides which runs are traced, by what they cost
and what was earned, and a thread stops a run that has cost enough. Only the recorder calls in.
"""

__all__ = ["allocation_tracer"]
