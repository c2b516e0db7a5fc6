"""Why a process that ends in an orderly way does so, as far as it can know."""

from __future__ import annotations

from billiard.pool import EX_RECYCLE

from otel_celery_memory.ipc.records import ExitReason
from otel_celery_memory.probes.own_memory import ProcessProbe


def exit_reason(exit_code: int, max_memory_kib: int, probe: ProcessProbe | None) -> ExitReason:
    """The reason for an exit code of billiard's; recycled for memory or for its number of tasks.

    ``max_memory_kib`` is ``worker_max_memory_per_child``, 0 for none.
    """
    if exit_code != EX_RECYCLE:
        return ExitReason.SHUTDOWN
    try:
        # The comparison that billiard made.
        if probe is not None and 0 < max_memory_kib * 1024 < probe.peak_bytes():
            return ExitReason.MAX_MEMORY
    except OSError:
        pass
    return ExitReason.MAX_TASKS
