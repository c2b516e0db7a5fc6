"""Adds to a verdict when a limit is reached, and which settings hold until it is fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from otel_celery_memory.ipc.records import MAIN_SLOT, slot_name
from otel_celery_memory.leaks.conclusion import Growing
from otel_celery_memory.leaks.forecast import (
    Headroom,
    largest_max_tasks_per_child,
    least_max_memory_per_child,
    time_to_limit,
)
from otel_celery_memory.leaks.verdict import Kind, Verdict
from otel_celery_memory.reporter.limits import Usage

_NEAR_S = 14 * 86_400.0
"""Settings that keep a worker below a limit are worth a word if it is reached within two weeks."""


@dataclass(frozen=True)
class Outlook:
    """What a forecast needs of the worker, at one moment.

    ``slots`` are those of the running processes by pid, ``rss_bytes`` their sizes.
    ``healthy_peak_bytes`` is the most that a run took and gave back, ``started_bytes`` what the
    largest of the processes had when it came up, if that is known.
    """

    usages: Sequence[Usage]
    slots: Mapping[int, int]
    rss_bytes: Mapping[int, int]
    healthy_peak_bytes: int = 0
    started_bytes: int = 0

    @property
    def children(self) -> list[int]:
        """The processes that run tasks: those of the pool, or the main process."""
        children = [pid for pid, slot in self.slots.items() if slot != MAIN_SLOT]
        return children or list(self.slots)

    def headrooms(self) -> list[Headroom]:
        """What is left of each limit: of the worker's by all growth, of a child's by its part."""
        part = 1 / max(len(self.children), 1)
        return [
            Headroom(
                "main" if usage.pid is None else slot_name(self.slots.get(usage.pid)),
                usage.kind,
                usage.limit_bytes,
                usage.limit_bytes - usage.used_bytes,
                1.0 if usage.pid is None else part,
            )
            for usage in self.usages
            if usage.pid is None or usage.pid in self.children
        ]

    def applied_to(self, verdict: Verdict, growing: Growing) -> Verdict:
        """The verdict on what ``growing`` says, with forecast and settings."""
        # What is copied ends where all that was inherited has been.
        if verdict.kind.unit != "By" or verdict.kind is Kind.COPY_ON_WRITE:
            return verdict
        forecast = time_to_limit(growing.rate_per_s, self.headrooms())
        is_near = forecast is not None and forecast.seconds.middle < _NEAR_S
        room_bytes = self._room_bytes(growing) if is_near else None
        children = [self.rss_bytes[pid] for pid in self.children if pid in self.rss_bytes]
        if room_bytes is None or not children or growing.per_run is None:
            return replace(verdict, forecast=forecast)
        grown_bytes = growing.grown / max(len(children), 1)
        # What has grown may be in one of them, or in children that are gone.
        base_bytes = max(min(children) - grown_bytes, float(self.started_bytes))
        return replace(
            verdict,
            forecast=forecast,
            max_tasks_per_child=largest_max_tasks_per_child(
                base_bytes + room_bytes, base_bytes, self.healthy_peak_bytes, growing.per_run
            ),
            max_memory_per_child_bytes=least_max_memory_per_child(
                base_bytes + room_bytes, base_bytes, self.healthy_peak_bytes
            ),
        )

    def _room_bytes(self, growing: Growing) -> float | None:
        """What each child may take beside what it needs, by the worker's limits; without growth."""
        left = [u.limit_bytes - u.used_bytes for u in self.usages if u.pid is None]
        if not left:
            return None
        return (max(min(left), 0) + growing.grown) / max(len(self.children), 1)
