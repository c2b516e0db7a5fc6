"""Uids of dashboards and ids of panels, to which links, alerts and bookmarks point.

A number stays with its panel when the panel moves or its title changes, and is not used again when
the panel is removed. A new panel takes the next number of its page.
"""

from __future__ import annotations

from dataclasses import dataclass

FLEET, WORKER, TASK_PAGE = "celery-memory-fleet", "celery-memory-worker", "celery-memory-task"


@dataclass(frozen=True)
class PanelId:
    """One panel: the uid of its dashboard and its number there."""

    dashboard: str
    number: int


FLEET_TASKS = PanelId(FLEET, 1)
FLEET_LIMITS = PanelId(FLEET, 2)
FLEET_GROWTH_BY_TASK = PanelId(FLEET, 3)
FLEET_GROWTH_BY_WORKER = PanelId(FLEET, 4)
FLEET_EXITS = PanelId(FLEET, 5)
FLEET_MEMORY = PanelId(FLEET, 6)
FLEET_ALARMS = PanelId(FLEET, 7)
FLEET_DROPPED = PanelId(FLEET, 8)
FLEET_COLLECTOR = PanelId(FLEET, 9)
FLEET_TRACING = PanelId(FLEET, 10)
FLEET_LOSSES_BY_TASK = PanelId(FLEET, 11)
FLEET_REPEATED = PanelId(FLEET, 12)
FLEET_LEAKS = PanelId(FLEET, 13)
FLEET_EXHAUSTION = PanelId(FLEET, 14)
FLEET_LEAK_RATES = PanelId(FLEET, 15)

WORKER_MEMORY = PanelId(WORKER, 1)
WORKER_LIMITS = PanelId(WORKER, 2)
WORKER_HEAP = PanelId(WORKER, 3)
WORKER_UNIQUE = PanelId(WORKER, 4)
WORKER_EXITS = PanelId(WORKER, 5)
WORKER_TASKS = PanelId(WORKER, 6)
WORKER_DESCRIPTORS = PanelId(WORKER, 7)
WORKER_SWAP = PanelId(WORKER, 8)
WORKER_RECYCLING_FREED = PanelId(WORKER, 9)
WORKER_RECYCLING_GAP = PanelId(WORKER, 10)
WORKER_PROCESS_TASKS = PanelId(WORKER, 11)
WORKER_PROCESS_LIFETIME = PanelId(WORKER, 12)
WORKER_LOST = PanelId(WORKER, 13)
WORKER_THREADS = PanelId(WORKER, 14)
WORKER_DESCENDANTS = PanelId(WORKER, 15)
WORKER_DESCENDANTS_LEFT = PanelId(WORKER, 16)
WORKER_MESSAGES = PanelId(WORKER, 17)
WORKER_COPIED = PanelId(WORKER, 18)
WORKER_COLLECTOR = PanelId(WORKER, 19)

TASK_RETAINED = PanelId(TASK_PAGE, 1)
TASK_SITES = PanelId(TASK_PAGE, 2)
TASK_DELTA_SPREAD = PanelId(TASK_PAGE, 4)
TASK_PEAK_SPREAD = PanelId(TASK_PAGE, 5)
TASK_TRACED = PanelId(TASK_PAGE, 6)
TASK_RUNS = PanelId(TASK_PAGE, 7)
TASK_SITE_RATES = PanelId(TASK_PAGE, 8)
TASK_PEAKS = PanelId(TASK_PAGE, 9)
TASK_LOST = PanelId(TASK_PAGE, 10)
TASK_SITE_EVENTS = PanelId(TASK_PAGE, 11)
TASK_LEFT_BEHIND = PanelId(TASK_PAGE, 12)
TASK_LEAKS = PanelId(TASK_PAGE, 13)
TASK_EXHAUSTION = PanelId(TASK_PAGE, 14)
TASK_LEAK_RATES = PanelId(TASK_PAGE, 15)
