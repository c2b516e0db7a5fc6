"""How one run of a task is traced, as the sampler or a capture decides."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """How one run is traced.

    ``allowance_s`` is the CPU time that may pass under tracing before it is stopped, which bounds
    what tracing can add. ``begin_after_s`` is ``None`` where the whole run is traced; else a slice
    of it is, which begins so many seconds after the run.
    """

    allowance_s: float
    begin_after_s: float | None = None
