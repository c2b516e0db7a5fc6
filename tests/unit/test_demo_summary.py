"""What the demo says at its end, of what the view knows."""

from __future__ import annotations

from typing import Any

from demo.numbers import Numbers, numbers_of
from demo.summary import names_the_leak, summary
from otel_celery_memory import conventions as c
from otel_celery_memory.view.snapshot import snapshot
from otel_celery_memory.view.store import Store
from tests.unit.view.examples import (
    AROUND,
    BEGAN_S,
    event,
    leak,
    retained,
    rss,
    runs,
    sample,
    store_with,
)

SITE: dict[str, Any] = {
    **{c.SITE_RANK: 1, c.SITE_NAME: "demo/app.py:26", c.CODE_FUNCTION: "refresh"},
    **{c.TASK_NAME: "feeds.refresh", c.SITE_SIZE: 516_000, c.SITE_BLOCKS: 502, c.SITE_RUNS: 9},
}


def seen(*samples: Any, events: tuple[Any, ...] = ()) -> Numbers:
    """The numbers of a view that got this."""
    return numbers_of(snapshot(store_with(*samples, events=events), BEGAN_S, AROUND))


def test_the_task_that_retains_most_is_named_with_its_line_and_the_verdict_in_words() -> None:
    numbers = seen(
        *(rss("main", 1 << 26), runs("feeds.refresh", 90), runs("mail.send", 120)),
        *(retained("feeds.refresh", 5_900_000, 10), retained("mail.send", 0, 20)),
        sample(c.FRAMES_DROPPED, 2),
        events=(event(c.ALLOCATION_SITE.name, SITE), leak()),
    )
    assert names_the_leak(numbers)
    said = summary(numbers)
    assert "\nfeeds.refresh leaks\n" in said, "the verdict's words"
    assert "\nfeeds.refresh leaks: a run retains 576.2 KiB.\n  demo/app.py:26 in refresh\n" in said
    assert "left 503.9 KiB in 502 blocks alive in each of 9 traced runs" in said
    assert "\nmail.send: a run retains 0 B.\n" in said
    assert said.endswith("210 tasks measured, 0 processes recycled, 0 lost, 2 frames dropped.")


def test_the_line_of_another_task_is_not_named_for_the_one_that_leaks() -> None:
    other = {**SITE, c.TASK_NAME: "mail.send"}
    numbers = seen(
        *(runs("feeds.refresh", 90), retained("feeds.refresh", 5_900_000, 10)),
        events=(event(c.ALLOCATION_SITE.name, other),),
    )
    assert not names_the_leak(numbers)
    said = summary(numbers)
    assert "No allocation site of it has arrived." in said
    assert "demo/app.py:26" not in said


def test_where_too_few_runs_were_sampled_no_task_is_called_healthy() -> None:
    numbers = seen(
        *(runs("feeds.refresh", 5), retained("feeds.refresh", 0, 1)),
        events=(event(c.ALLOCATION_SITE.name, SITE),),
    )
    assert not names_the_leak(numbers)
    said = summary(numbers)
    assert "Too few runs were sampled to say which task leaks" in said
    assert "Most was left alive by feeds.refresh at demo/app.py:26 in refresh." in said


def test_before_a_worker_has_sent_anything_there_are_no_numbers() -> None:
    assert numbers_of(snapshot(Store(BEGAN_S), BEGAN_S, AROUND)) == Numbers()
