"""What the view knows as rows for the table and the summary. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TaskRow:
    """One task: means are of a run, the peak is the highest of all runs, ``None`` is unknown."""

    name: str
    runs: int
    rss_delta_bytes: float | None
    rss_peak_bytes: float | None
    retained_bytes: float | None
    traced_delta_bytes: float | None


@dataclass(frozen=True)
class SiteRow:
    """A line, and what traced runs of a task left alive there, on average."""

    name: str
    function: str
    task: str
    run_bytes: float
    blocks: int
    runs: int

    @property
    def place(self) -> str:
        """For people: where in the code."""
        return f"{self.name} in {self.function}" if self.function else self.name


@dataclass(frozen=True)
class Numbers:
    """The numbers of one moment."""

    tasks: tuple[TaskRow, ...] = ()
    rss_bytes_by_slot: tuple[tuple[str, float], ...] = ()
    sites: tuple[SiteRow, ...] = ()
    """The last ranking; the line that grows most comes first."""
    verdict: str = ""
    """The most important verdict that stands, in words."""
    recycled: int = 0
    lost: int = 0
    frames_dropped: int = 0

    @property
    def runs(self) -> int:
        """Runs of all tasks."""
        return sum(task.runs for task in self.tasks)


def numbers_of(snapshot: Mapping[str, Any]) -> Numbers:
    """The numbers of a snapshot of the view, to which one worker sends."""
    if not snapshot["workers"]:
        return Numbers()
    (worker,) = snapshot["workers"]
    happened = snapshot["timeline"]
    standing = (each for each in snapshot["verdicts"] if each["state"] != "ended")
    return Numbers(
        tasks=tuple(sorted(map(_task, worker["tasks"]), key=lambda task: task.name)),
        rss_bytes_by_slot=tuple(
            (each["slot"], each["rss"]) for each in worker["processes"] if not each["gone"]
        ),
        sites=tuple(map(_site, worker["sites"])),
        verdict=next((each["text"] for each in standing), ""),
        recycled=sum(each["count"] for each in happened if each["kind"] == "recycled"),
        lost=sum(each["count"] for each in happened if each["kind"] == "lost"),
        frames_dropped=int(worker["dropped"]),
    )


def _task(row: Mapping[str, Any]) -> TaskRow:
    return TaskRow(
        row["name"],
        int(row["runs"]),
        row["rss_delta"],
        row["peak"],
        row["retained"],
        row["traced"],
    )


def _site(row: Mapping[str, Any]) -> SiteRow:
    return SiteRow(
        row["name"],
        row["function"],
        row["task"],
        row["size"] or 0,
        row["blocks"] or 0,
        row["runs"] or 0,
    )
