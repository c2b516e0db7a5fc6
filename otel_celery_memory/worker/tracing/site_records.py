"""What a window of tracing found, as records: the largest sites, with the place that owns each."""

from __future__ import annotations

import time
from collections.abc import Sequence

from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.ipc.records import Record, Site, SitesWindow, WindowKind
from otel_celery_memory.probes.sites import LiveSites, SiteDelta, SiteFilter, changed_sites
from otel_celery_memory.worker.tracing.traced_run import Traced

SHARED_NAME = "_shared"
"""The task name of sites that were seen while several tasks ran: no one task's."""
SITES_PER_WINDOW = 40
SITES_PER_CAPTURE = 500
"""Of eight children at once these fill three quarters of a pipe of 1 MiB."""


def left_alive(sites: LiveSites, chosen: SiteFilter) -> list[SiteDelta]:
    """Sites of what was allocated since tracing began."""
    return changed_sites({}, sites, chosen)


def raised(state: str) -> bool:
    """Whether a run that ended in this state ended in an exception."""
    return state in ("FAILURE", "RETRY")


def run_records(
    pid: int,
    task: str,
    traced: Traced,
    chosen: SiteFilter,
    capture: Commands | None,
    *,
    with_exception: bool = False,
) -> list[Record]:
    """What a window in a run of `task` found, of a capture or of none.

    A run that raised (``with_exception``) leaves that, with all frames, in a cycle that the
    collector has not come to: that is not yet left behind, and more than most leaks.
    """
    whole = traced.whole and not traced.aborted and task != SHARED_NAME and not with_exception
    return window_records(
        pid,
        WindowKind.COMPLETE if whole else WindowKind.PARTIAL,
        task,
        left_alive(traced.sites, chosen),
        aborted=traced.whole and traced.aborted,
        capture=capture.capture if capture else 0,
    )


def window_records(
    pid: int,
    kind: WindowKind,
    task: str,
    deltas: Sequence[SiteDelta],
    *,
    runs: int = 1,
    aborted: bool = False,
    capture: int = 0,
) -> list[Record]:
    """The window and its largest sites.

    Largest of both signs: a site that shrinks in every run is no leak, and the reporter must see
    it to say so. Of a capture more are told than of what is sampled, and what is left out is the
    window's ``other_*``.
    """
    bound = SITES_PER_CAPTURE if capture else SITES_PER_WINDOW
    ranked = sorted(deltas, key=lambda delta: abs(delta.size_bytes), reverse=True)
    told, rest = ranked[:bound], ranked[bound:]
    return [
        SitesWindow(
            pid,
            time.time_ns(),
            kind,
            runs,
            int(aborted),
            capture,
            len(told),
            sum(delta.size_bytes for delta in rest),
            sum(delta.blocks for delta in rest),
            task,
        ),
        *(
            Site(
                pid,
                kind,
                capture,
                delta.size_bytes,
                delta.blocks,
                delta.line,
                task,
                delta.path,
                "\n".join(f"{path}:{line}" for path, line in reversed(delta.stack)),
            )
            for delta in told
        ),
    ]
