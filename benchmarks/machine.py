"""The machine that figures were measured on, and what else it did meanwhile."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

VERSIONS = ("celery", "opentelemetry-sdk", "psutil", "redis")


@dataclass(frozen=True)
class Marks:
    """Clocks at a moment: wall, busy seconds of all processors, and those of ours that ended."""

    wall_s: float
    busy_s: float
    own_s: float

    @classmethod
    def now(cls) -> Marks:
        """These clocks now."""
        times = psutil.cpu_times()
        own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return cls(
            time.monotonic(),
            sum(times) - times.idle - getattr(times, "iowait", 0.0),
            sum(each.ru_utime + each.ru_stime for each in own),
        )


def others(before: Marks, after: Marks) -> float:
    """The share of all processors that was used by other processes meanwhile.

    Of ours those count that have ended, so it is asked for when all have.
    """
    available = (after.wall_s - before.wall_s) * (os.cpu_count() or 1)
    used = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    return max(used, 0.0) / available if available > 0 else 0.0


def described() -> dict[str, Any]:
    """Processor, memory, kernel, versions and date."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in VERSIONS},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
