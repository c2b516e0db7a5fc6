"""What runs leave behind, by counters that are made up and a collector that is."""

from __future__ import annotations

import gc
import random
import sys
from array import array
from collections import Counter
from itertools import count

import pytest

from otel_celery_memory.ipc.commands import NO_BALANCE, Balance
from otel_celery_memory.ipc.records import FloorMeasured, Record, RunRetained
from otel_celery_memory.probes.allocators import SMALL_BLOCK_BYTES, HeapReading
from otel_celery_memory.worker.measuring.run_counters import (
    FLOOR_NS,
    Collector,
    CounterProbes,
    RunCounters,
)

S = 1_000_000_000


class Heap(Collector):
    """A process: its levels, its garbage, young and old, and its clocks."""

    def __init__(
        self, *, allowed: bool = True, before: Balance = NO_BALANCE, seed: int = 1
    ) -> None:
        super().__init__()
        self.malloc, self.blocks, self.files, self.threads = 5_000_000, 1_000, 9, 2
        self.young_garbage = self.old_garbage = self.collections = 0
        self.now_ns = self.cpu_ns = 0
        self.others_ns = self.own_work = 0
        self.read_ns = 10_000
        self.is_allowed = allowed
        self.full_ns: list[int] = []
        """How long the next full collections take."""
        self.generations: list[int] = []
        self.previous = ""
        self.result = 0
        self.sent: list[Record] = []
        self.grown_s: list[float] = []
        self.cost_s: list[float] = []
        probes = CounterProbes(
            self._malloc,
            lambda: self.blocks,
            lambda: self.files,
            self._threads,
            free_tuples=lambda: 0,
            others_ns=lambda: self.others_ns,
            own_work=lambda: self.own_work,
        )
        self.counters = RunCounters(
            self,
            0.01,
            0.25,
            lambda: 70_000_000,
            probes,
            self,
            before=before,
            has_grown=self.grown_s.append,
            has_cost=self.cost_s.append,
            clock_ns=lambda: self.now_ns,
            cpu_ns=lambda: self.cpu_ns,
            chance=random.Random(seed),
        )

    def _malloc(self) -> int:
        return self.malloc + self.young_garbage + self.old_garbage

    def _threads(self) -> int:
        self.cpu_ns += self.read_ns
        return self.threads

    def send(self, record: Record) -> bool:
        self.sent.append(record)
        return True

    def allowed(self) -> bool:
        return self.is_allowed

    def collect(self, generation: int) -> int:
        self.generations.append(generation)
        self.young_garbage = 0
        if generation == 2:
            self.old_garbage = 0
            self.collections += 1
            took_ns = self.full_ns.pop(0) if self.full_ns else 0
            self.now_ns += took_ns
            self.cpu_ns += took_ns
        return 3

    def full_collections(self) -> int:  # type: ignore[override]
        return self.collections

    def run(
        self, name: str = "a", kept: int = 0, blocks: int = 0, garbage: int = 0, result: int = 0
    ) -> None:
        """A run starts, leaves something behind and ends; the pool keeps its result until the next
        one has ended."""
        self.counters.boundary(name, self.previous)
        self.previous = name
        self.malloc += result - self.result
        self.result = result
        self.now_ns += S // 100
        self.cpu_ns += S // 100
        self.malloc += kept
        self.blocks += blocks
        self.young_garbage += garbage

    @property
    def samples(self) -> list[RunRetained]:
        """What was sent of runs that are no warm-up."""
        return [r for r in self.sent if isinstance(r, RunRetained) and not r.warm_up]


def test_a_run_is_what_it_left_behind_and_another_run_has_no_part_in_it() -> None:
    heap = Heap()
    for _ in range(4):
        heap.run("leaks", kept=10_000, blocks=3)
        heap.run("healthy")
    found = {(r.task, r.heap_bytes, r.blocks, r.open_files, r.threads) for r in heap.samples}
    assert found == {("leaks", 10_000 + 3 * SMALL_BLOCK_BYTES, 3, 0, 0), ("healthy", 0, 0, 0, 0)}


def disturbed_runs(heap: Heap, runs: int, others_ns: int, own_work: int) -> None:
    """Each third run keeps 1,000 bytes; in the others an export begins, or ends."""
    for number in range(runs):
        if number % 3 == 0:
            heap.run(kept=1_000)
            continue
        heap.run(kept=150_000 if number % 3 == 1 else -150_000)
        heap.others_ns += others_ns
        heap.own_work += own_work


@pytest.mark.parametrize(("others_ns", "own_work"), [(5_000_000, 0), (0, 1)])
def test_what_exports_take_for_a_moment_is_no_run_s(others_ns: int, own_work: int) -> None:
    heap = Heap()
    disturbed_runs(heap, 3_000, others_ns, own_work)
    assert {sample.heap_bytes for sample in heap.samples} == {1_000}


def test_runs_that_others_always_disturb_are_sampled_even_so_and_marked() -> None:
    heap = Heap()
    for _ in range(1_000):
        heap.run(kept=10_000)
        heap.others_ns += 5_000_000
    assert len(heap.samples) > 5
    assert {(sample.heap_bytes, sample.alike) for sample in heap.samples} == {(10_000, 0)}


def test_what_the_pool_keeps_of_results_is_no_growth_among_runs_of_one_task() -> None:
    heap, chance = Heap(), random.Random(1)
    results = {"short": 10, "long": 200, "longer": 900}
    for _ in range(20_000):
        name = chance.choice(list(results))
        heap.run(name, result=results[name])
    alike = [r for r in heap.samples if r.alike]
    assert {(r.task, r.heap_bytes) for r in alike} == {(name, 0) for name in results}
    assert {r.heap_bytes for r in heap.samples if not r.alike} != {0}
    # Of samples that were taken as they came it would be one in nine.
    assert len(alike) > 0.3 * len(heap.samples)


def test_a_task_that_never_runs_three_times_in_a_row_is_sampled_all_the_same() -> None:
    heap = Heap()
    for _ in range(50):
        heap.run("a")
        heap.run("a")
        heap.run("b")
        heap.now_ns += S
    assert len([r for r in heap.samples if r.task == "a"]) >= 20


def test_a_sample_waits_a_while_for_a_run_after_one_of_its_own_task() -> None:
    def sampled(rounds: int, before: Balance = NO_BALANCE) -> Counter[str]:
        heap = Heap(before=before)
        for _ in range(10):
            heap.run("has followed on itself")
        for _ in range(rounds):
            heap.run("has followed on itself")
            heap.run("never does")
            heap.now_ns += 4 * S
        return Counter(r.task for r in heap.samples if not r.alike)

    few, many = sampled(10), sampled(40)
    assert few["never does"] >= 5
    assert few["has followed on itself"] <= 4  # the first ones are marked, all of them
    assert many["has followed on itself"] >= 15
    # Children that live for a few runs have none to pass over.
    assert sampled(10, Balance(runs=20, run_s=1.0))["has followed on itself"] >= 5


def test_a_heap_that_goes_on_growing_is_noticed_and_one_that_has_grown_is_not() -> None:
    def grown_s(*kept: int) -> float:
        heap = Heap()
        for size in kept:
            for _ in range(1_000):  # ten seconds
                heap.run(kept=size)
        return sum(heap.grown_s)

    assert grown_s(*[100] * 10) >= 50
    assert grown_s(*[0] * 10) == 0
    assert grown_s(100_000, 0, 0, 0, 0, 0) == 0
    assert grown_s(5_000, 5_000, *[0] * 8) == 0
    # A buffer that is enlarged now and then.
    assert grown_s(*[0, 0, 100] * 6) >= 50
    assert grown_s(*[100, -100] * 5) == 0


def test_what_samples_cost_is_told() -> None:
    heap = Heap()
    for _ in range(500):
        heap.run()
    assert sum(heap.cost_s) == pytest.approx(heap.counters.spent_ns / 1e9)
    assert heap.counters.spent_ns >= heap.read_ns * len(heap.samples) > 0


def test_while_the_heap_grows_what_may_be_spent_is_spent() -> None:
    def sampled(kept: int) -> tuple[int, float]:
        heap = Heap()
        heap.read_ns = S // 5_000
        for _ in range(6_000):  # a minute
            heap.run(kept=kept)
        before, spent_ns = len(heap.samples), heap.counters.spent_ns
        for _ in range(6_000):
            heap.run(kept=kept)
        return len(heap.samples) - before, (heap.counters.spent_ns - spent_ns) / 60e9

    calm, calm_share = sampled(0)
    growing, growing_share = sampled(100)
    assert growing > 1.5 * calm > 0
    assert calm_share <= 0.004
    assert 0.005 < growing_share <= 0.007


def test_where_runs_overlap_and_none_is_sampled_the_heap_is_watched_by_what_is_read_of_it() -> None:
    def grown_s(kept: int, *, sampled: bool) -> float:
        heap = Heap()
        for _ in range(20):  # every 15 seconds
            heap.malloc += kept
            heap.counters.heap_read(HeapReading(heap.blocks, heap.malloc, None))
            if sampled:
                heap.run()
                heap.run()
            heap.now_ns += 15 * S
        return sum(heap.grown_s)

    assert grown_s(100_000, sampled=False) > 200
    assert grown_s(0, sampled=False) == 0
    by_samples = grown_s(100_000, sampled=True)
    assert 0 < by_samples <= 300  # not counted twice


def test_a_process_that_has_spent_all_is_asked_at_few_runs_until_tasks_are_due() -> None:
    heap = Heap()
    heap.read_ns = S // 10
    asked = 0
    for _ in range(250):  # in less than the time after which tasks are due
        asked += not heap.counters.left.get("a") or heap.counters.open != ""
        heap.run()
    assert asked <= 6
    heap.counters.due_ns = heap.now_ns
    heap.run()
    assert heap.counters.left["a"] > 0  # asked again, and there is still nothing


def test_what_could_not_be_spent_for_hours_is_not_spent_at_once() -> None:
    heap = Heap()
    heap.read_ns = S // 5_000
    for _ in range(3_600):  # ten hours
        heap.run(kept=5_000)
        heap.now_ns += 10 * S
    assert sum(heap.grown_s) > 3_600
    spent_ns, cpu_ns = heap.counters.spent_ns, heap.cpu_ns
    for _ in range(6_000):
        heap.run(kept=100)
    assert heap.counters.spent_ns - spent_ns < 0.01 * (heap.cpu_ns - cpu_ns) + S // 5


class Blocks:
    """Takes the blocks of each sample, and keeps no object."""

    def __init__(self) -> None:
        self.seen = array("q", [0] * 10_000)
        self.count = 0

    def send(self, record: Record) -> bool:
        if isinstance(record, RunRetained):
            self.seen[self.count] = record.blocks
            self.count += 1
        return True


def test_a_run_that_keeps_nothing_is_zero_by_the_interpreter_s_own_counter() -> None:
    found = Blocks()
    clock, cpu = count(0, S // 100), count(0, S // 500)
    counters = RunCounters(
        *(found, 0.01, 0.25, lambda: 0, CounterProbes(None)),
        clock_ns=lambda: next(clock),
        cpu_ns=lambda: next(cpu),
    )
    for _ in range(40_000):
        counters.boundary("a", "b")
        counters.boundary("b", "a")
    assert found.count > 50
    assert sum(found.seen[20 : found.count]) <= 2


def test_a_heap_that_grows_is_sampled_more() -> None:
    def samples(kept: int) -> int:
        heap = Heap()
        heap.read_ns = 100_000
        for _ in range(3_000):
            heap.run(kept=kept)
            heap.now_ns += S // 10
            heap.cpu_ns -= S // 100 - S // 10_000
        return len(heap.samples)

    assert samples(10_000) > 2 * samples(0)


def test_a_first_run_in_a_process_is_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    heap = Heap()
    heap.run(kept=40_000_000)
    heap.run()
    heap.run(kept=50)
    monkeypatch.setitem(sys.modules, "a_module_that_a_later_run_imported", sys)
    heap.run()
    warm = [r.heap_bytes for r in heap.sent if isinstance(r, RunRetained) and r.warm_up]
    assert warm == [40_000_000, 50]
    assert [r.heap_bytes for r in heap.samples] == [0]


def test_children_that_live_for_a_few_runs_are_sampled_seldom_and_not_in_their_first_runs() -> None:
    children = 400
    sampled = spent_ns = 0
    for number in range(children):
        heap = Heap(before=Balance(runs=10, run_s=0.05), seed=number)
        heap.read_ns = 100_000
        heap.counters.boundary("a", "")
        assert not heap.counters.open
        for _ in range(10):
            heap.run()
        sampled += len(heap.samples)
        spent_ns += heap.counters.spent_ns
        assert not any(sample.alike for sample in heap.samples)
    assert sampled > 20
    assert spent_ns < 0.01 * children * 10 * 0.05 * S


def test_garbage_is_of_the_task_that_makes_it_and_is_no_growth_of_anybody() -> None:
    heap = Heap()
    for _ in range(4):
        heap.run("cycles", garbage=200_000)
        heap.run("healthy")
    found = {(r.task, r.heap_bytes, r.garbage_bytes) for r in heap.samples}
    assert found == {("cycles", 0, 200_000), ("healthy", 0, 0)}


def test_a_full_collection_inside_a_run_makes_it_no_sample_and_the_next_lie_between_two() -> None:
    heap = Heap()
    heap.old_garbage = 3_000_000
    for _ in range(3):
        heap.run("long", kept=100)
        heap.collect(2)
    heap.generations.clear()
    for _ in range(4):
        heap.run("long", kept=100)
        heap.collect(2)
    assert {r.heap_bytes for r in heap.samples} == {100}
    assert heap.generations.count(2) > 4


def test_a_run_that_raised_before_another_task_is_no_sample_nor_is_the_one_after_it() -> None:
    heap = Heap()
    for _ in range(3):
        heap.run("fails")
        heap.run("other")
    for _ in range(3):
        heap.run("fails", kept=300_000)
        heap.counters.raised()
        heap.run("other", kept=-300_000)
    heap.run("other")
    assert {(r.task, r.heap_bytes) for r in heap.samples} == {("fails", 0), ("other", 0)}


def test_the_sample_of_a_run_that_raised_ends_after_the_next_one_if_that_is_of_the_task_too() -> (
    None
):
    heap = Heap()
    for _ in range(3):
        heap.run("fails")
    for _ in range(3):
        heap.run("fails", kept=308_000)
        heap.counters.raised()
        heap.run("fails", kept=-300_000)  # the traceback is freed, and the leak is not
        heap.run("fails")
    heap.run("fails", kept=308_000)
    heap.counters.raised()
    heap.run("fails")
    heap.counters.raised()  # that one raised, too
    heap.run("fails", kept=-300_000)
    heap.run("fails")
    assert {r.heap_bytes for r in heap.samples} == {0, 8_000}


def test_where_the_collector_is_disabled_nothing_is_collected_and_garbage_is_growth() -> None:
    heap = Heap(allowed=False)
    for _ in range(4):
        heap.run(garbage=200_000)
    heap.now_ns += 10 * FLOOR_NS
    heap.cpu_ns += 10 * FLOOR_NS
    heap.run()
    assert heap.generations == []
    assert [(r.heap_bytes, r.garbage_bytes) for r in heap.samples][:2] == [(200_000, None)] * 2


def test_a_task_that_runs_often_is_sampled_seldom_and_a_rare_one_at_each_run() -> None:
    heap = Heap()
    heap.read_ns = 200_000
    for turn in range(3_000):
        heap.run("often")
        if turn % 500 == 0:
            heap.now_ns += 4 * S
            heap.run("rare")
    of = [r.task for r in heap.samples]
    assert of.count("rare") == 5
    assert len(of) < 1_000
    assert heap.counters.spent_ns < 0.01 * heap.cpu_ns


def test_reads_that_cost_milliseconds_are_done_seldom_enough() -> None:
    heap = Heap()
    heap.read_ns = 7_000_000
    for _ in range(5_000):
        heap.run()
    assert heap.counters.spent_ns < 0.01 * heap.cpu_ns + 0.1 * S


def test_after_a_minute_of_work_there_is_a_floor_with_the_levels_right_after_it() -> None:
    heap = Heap()
    heap.run()
    heap.old_garbage = 700
    heap.now_ns += FLOOR_NS
    heap.cpu_ns += FLOOR_NS
    heap.run()
    [floor] = [r for r in heap.sent if isinstance(r, FloorMeasured)]
    assert floor.heap_bytes == 5_000_000 + 1_000 * SMALL_BLOCK_BYTES
    assert (floor.rss_bytes, floor.open_files, floor.threads) == (70_000_000, 9, 2)
    assert (floor.collected, floor.garbage_bytes) == (3, 700)


def test_a_first_floor_that_copies_the_shared_heap_does_not_forbid_the_next_ones() -> None:
    def floors(took_ns: list[int]) -> int:
        heap = Heap()
        heap.blocks = 400_000
        heap.full_ns = [*took_ns]
        for _ in range(6):
            heap.run()
            heap.now_ns += FLOOR_NS
            heap.cpu_ns += 10 * FLOOR_NS
        return sum(isinstance(r, FloorMeasured) for r in heap.sent)

    assert floors([66_000_000, *[20_000_000] * 9]) == 5
    assert floors([66_000_000] * 9) == 2


def test_a_heap_of_gibibytes_has_no_floor_as_it_would_hold_a_run_too_long() -> None:
    heap = Heap()
    heap.blocks = 40_000_000
    heap.now_ns += FLOOR_NS
    heap.cpu_ns += 100 * FLOOR_NS
    heap.run()
    heap.run()
    assert 2 not in heap.generations


def test_a_run_that_is_traced_is_no_sample_nor_is_the_next_at_once() -> None:
    heap = Heap()
    heap.run()
    heap.run()
    heap.counters.discard()
    heap.run(kept=5_000_000)
    heap.run()
    assert heap.samples == []


def test_of_more_names_than_there_is_room_for_the_others_are_not_sampled() -> None:
    heap = Heap()
    for number in range(300):
        heap.run(f"t{number}")
    assert len(heap.counters.left) == 200


def test_what_cannot_be_read_is_absent() -> None:
    levels = array("q", [0] * 4)
    heap = Heap()
    nothing = lambda: None  # noqa: E731
    probes = CounterProbes(None, lambda: 5, nothing, nothing, free_tuples=lambda: 0)
    probes.read_into(levels)
    heap.counters._probes = probes
    for _ in range(3):
        heap.run()
    assert {(r.heap_bytes, r.blocks, r.open_files, r.threads) for r in heap.samples} == {
        (None, 0, None, None)
    }


def test_a_user_s_frozen_or_disabled_collector_is_left_alone() -> None:
    gc.disable()
    try:
        assert not Collector().allowed()
    finally:
        gc.enable()
    assert Collector().allowed()
    collector = Collector()
    gc.freeze()
    try:
        assert not collector.allowed()
    finally:
        gc.unfreeze()
    assert not collector.allowed()
