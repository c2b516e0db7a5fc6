"""A verdict with all that one may have: what tests change to theirs."""

from __future__ import annotations

from otel_celery_memory.leaks.verdict import (
    Forecast,
    Holder,
    Interval,
    Kind,
    Place,
    State,
    Verdict,
    Where,
)

VERDICT = Verdict(
    state=State.LEAKING,
    kind=Kind.PYTHON,
    where=Where.TASK,
    task="shop.tasks.import_feed",
    rate=Interval(10_445, 10_035, 10_854),
    rate_per_s=20_000,
    runs=4_100,
    processes=6,
    since_s=0,
    now_s=3_600,
    grown=42_000_000,
    explained=0.97,
    place=Place("shop/feeds.py:41", "/app/shop/feeds.py", 41, "remember", "", 0.97),
    holder=Holder("shop.feeds._seen", (("dict", 3.0), ("str", 2.0))),
    forecast=Forecast("0", "cgroup", 2 << 30, Interval(7 * 3_600, 6 * 3_600, 9 * 3_600)),
    max_tasks_per_child=4_000,
)
