"""The numbers of tasks, from real workers: exact counts, sizes within five per cent."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.receiver import Event, Point, Receiver
from tests.processes import wait_until
from tests.worker.harness import Start, exits, measured, wait_measured

LONG = pytest.mark.long
MIB = 1 << 20
SIZE = 64 * MIB
ALWAYS = {"OTEL_CELERY_MEMORY_TRACING": "always", "OTEL_CELERY_MEMORY_SITES_INTERVAL": "1"}


@pytest.mark.parametrize(
    ("alone", "together", "of_each"), [(8, 392, 20), pytest.param(40, 1960, 100, marks=LONG)]
)
def test_each_task_is_counted_once_however_often_children_are_recycled(
    start: Start, receiver: Receiver, alone: int, together: int, of_each: int
) -> None:
    """Of some children each runs one task, of others `of_each`."""
    with start(name="one", arguments=["--concurrency=2", "--max-tasks-per-child=1"]) as worker:
        results = [worker.send("noop") for _ in range(alone)]
        for result in results:
            result.get(timeout=300)
        worker.stop()
    many = ["--concurrency=2", f"--max-tasks-per-child={of_each}"]
    with start(name="many", arguments=many) as worker:
        results = [worker.send("noop") for _ in range(together)]
        for result in results:
            result.get(timeout=300)
        worker.stop()
    assert measured(receiver.received) == {"noop": alone + together}
    retained = receiver.received.latest("celery.task.memory.rss.retained")
    # Every run was followed by another start or by an orderly end.
    assert sum(point.count for point in retained) == alone + together
    deltas = receiver.received.latest("celery.task.memory.rss.delta")
    assert sum(point.count for point in deltas) == alone + together
    recycled = {
        instance: exits(receiver.received, instance=instance)["max_tasks"]
        for instance in {point.resource["service.instance.id"] for point in deltas}
    }
    # The last one may find the worker stopping.
    assert recycled["one@test"] in (alone - 1, alone)
    # Twenty less what the two children at the end have not run.
    assert recycled["many@test"] in (18, 19)
    assert [point.value for point in receiver.received.latest("celery.memory.frames.dropped")] == [
        0
    ] * 6


def total(receiver: Receiver, metric: str, task: str) -> tuple[int, int]:
    """Net bytes and count of a histogram of one task."""
    points = [
        point
        for point in receiver.received.latest(metric)
        if point.attributes["celery.task.name"] == f"tests.worker.app.{task}"
    ]
    return round(sum(_signed(point) for point in points)), sum(point.count for point in points)


def _signed(point: Point) -> float:
    return (
        -point.value if point.attributes.get("celery.memory.direction") == "shrink" else point.value
    )


def test_a_kept_64_mib_is_in_every_delta_and_a_freed_64_mib_in_the_peaks_alone(
    start: Start, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=1"], environ=ALWAYS) as worker:
        worker.run("noop")
        for _ in range(3):
            worker.run("keep", SIZE)
            worker.run("free", SIZE)
        worker.stop()
    for metric in ("rss.delta", "rss.retained", "traced.delta", "rss.peak", "traced.peak"):
        kept_bytes, runs = total(receiver, f"celery.task.memory.{metric}", "keep")
        assert runs == 3
        assert kept_bytes / 3 == pytest.approx(SIZE, rel=0.05), metric
    for metric in ("rss.delta", "rss.retained", "traced.delta"):
        freed_bytes, runs = total(receiver, f"celery.task.memory.{metric}", "free")
        assert runs == 3
        assert abs(freed_bytes / 3) < 4 * MIB, metric
    for metric in ("rss.peak", "traced.peak"):
        peak_bytes, runs = total(receiver, f"celery.task.memory.{metric}", "free")
        assert runs == 3
        assert peak_bytes / 3 == pytest.approx(SIZE, rel=0.05), metric


def test_the_site_event_of_highest_rank_names_the_leaking_line_and_its_function(
    start: Start, receiver: Receiver
) -> None:
    source = (Path(__file__).parent / "app.py").read_text().splitlines()
    line = next(i for i, text in enumerate(source, 1) if "# the leaking line" in text)
    with start(arguments=["--concurrency=2"], environ=ALWAYS) as worker:

        def leading() -> list[Event]:
            worker.run("keep", MIB)
            worker.run("noop")
            events = receiver.received.events
            return [
                event
                for event in events
                if event.attributes["celery.memory.site.rank"] == 1
                and event.attributes["code.line.number"] == line
                and event.attributes["celery.memory.site.window"] == "complete"
            ]

        event = wait_until("the leaking line leads", leading, 60)[-1]
        worker.stop()
    size = event.attributes["celery.memory.site.size"]
    assert size == pytest.approx(MIB, rel=0.01)
    assert event.name == "celery.memory.allocation_site"
    assert event.severity == "INFO"
    assert {
        key: event.attributes[key]
        for key in ("celery.task.name", "code.line.number", "code.function.name")
    } == {
        "celery.task.name": "tests.worker.app.keep",
        "code.line.number": line,
        "code.function.name": "keep",
    }
    assert event.attributes["code.file.path"].endswith("tests/worker/app.py")
    assert event.attributes["celery.memory.site.name"].endswith(f"app.py:{line}")


def test_an_eager_call_is_measured_inside_its_caller(start: Start, receiver: Receiver) -> None:
    with start(arguments=["--concurrency=1"], environ=ALWAYS) as worker:
        worker.run("noop")
        worker.run("outer", SIZE)
        worker.stop()
    assert measured(receiver.received) == {"noop": 1, "outer": 1, "keep": 1}
    for task in ("outer", "keep"):
        for metric in ("rss.delta", "rss.peak", "traced.delta", "traced.peak"):
            size_bytes, runs = total(receiver, f"celery.task.memory.{metric}", task)
            assert runs == 1
            assert size_bytes == pytest.approx(SIZE, rel=0.05), (task, metric)
    # What is retained is measured once, for the outermost.
    assert total(receiver, "celery.task.memory.rss.retained", "keep") == (0, 0)


@pytest.mark.parametrize("pool", ["threads", "gevent", "eventlet"])
def test_tasks_that_overlap_are_counted_as_shared_and_kept_out_of_distributions(
    start: Start, receiver: Receiver, pool: str
) -> None:
    with start(arguments=[f"--pool={pool}", "--concurrency=4"]) as worker:
        for result in [worker.send("sleep", 1.0) for _ in range(4)]:
            result.get(timeout=300)
        # A result can be had a little before its task has ended for us.
        wait_measured(receiver.received, {"sleep": 4})
        worker.run("keep", SIZE)
        worker.stop()
    counts = {
        (point.attributes["celery.task.name"].rpartition(".")[2], shared): int(point.value)
        for point in receiver.received.latest("celery.task.memory.measured")
        if (shared := point.attributes["celery.memory.exclusive"]) is not None
    }
    assert counts == {("sleep", False): 4, ("keep", True): 1}
    assert total(receiver, "celery.task.memory.rss.delta", "sleep") == (0, 0)
    kept_bytes, runs = total(receiver, "celery.task.memory.rss.delta", "keep")
    assert runs == 1
    assert kept_bytes == pytest.approx(SIZE, rel=0.05)


def test_the_solo_pool_is_measured_in_the_main_process(start: Start, receiver: Receiver) -> None:
    with start(arguments=["--pool=solo"]) as worker:
        worker.run("keep", SIZE)
        worker.run("noop")
        worker.stop()
    assert measured(receiver.received) == {"keep": 1, "noop": 1}
    kept_bytes, _ = total(receiver, "celery.task.memory.rss.retained", "keep")
    assert kept_bytes == pytest.approx(SIZE, rel=0.05)


def test_memory_and_files_of_every_process_are_exported_under_its_slot(
    start: Start, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=2", "--max-memory-per-child=500000"]) as worker:
        for _ in range(4):
            worker.run("noop")
        pids = {"main": worker.pid, "reporter": worker.reporter()}

        def slots(metric: str) -> set[str]:
            return {
                point.attributes["celery.worker.slot"]
                for point in receiver.received.latest(f"celery.worker.{metric}")
            }

        everyone = {*pids, "0", "1"}
        for metric in ("memory", "memory.virtual", "memory.unique", "open_files", "threads"):
            wait_until(metric, lambda metric=metric: slots(metric) == everyone, 10)  # type: ignore[misc]
        assert slots("memory.proportional") == slots("memory.swap") == everyone
        # Sent after a run, and so maybe an export later than the others; by children that ran one.
        wait_until("heap.blocks", lambda: slots("heap.blocks"), 10)
        assert slots("heap.blocks") <= {"0", "1"}
        limits = {
            point.attributes["celery.memory.limit.kind"]: point.value
            for point in receiver.received.latest("celery.worker.memory.limit")
        }
        assert limits["max_memory_per_child"] == 500_000 * 1024
        assert limits["host"] > 0
        worker.stop()


def test_what_the_garbage_collector_does_is_counted_by_slot_over_recycled_children(
    start: Start, receiver: Receiver
) -> None:
    runs, cycles = 6, 1_000
    arguments = ["--concurrency=1", "--max-tasks-per-child=2"]
    # A child's last sample comes at its end, whenever the one before was.
    environ = {"OTEL_CELERY_MEMORY_EXPORT_INTERVAL": "30"}
    with start(arguments=arguments, environ=environ) as worker:
        for _ in range(runs):
            assert worker.run("collect_cycles", cycles) >= cycles
        worker.stop()
    found = {
        metric: {
            point.attributes["cpython.gc.generation"]: point.value
            for point in receiver.received.latest(f"cpython.gc.{metric}")
            if point.attributes["celery.worker.slot"] == "0"
        }
        for metric in ("collections", "collected_objects")
    }
    # Two full collections a run; a few more may be the interpreter's or ours.
    assert 2 * runs <= found["collections"][2] < 4 * runs
    assert runs * cycles <= found["collected_objects"][2] < 2 * runs * cycles
    assert set(found["collections"]) == {0, 1, 2}
    assert receiver.received.latest("cpython.gc.uncollectable_objects") == []
