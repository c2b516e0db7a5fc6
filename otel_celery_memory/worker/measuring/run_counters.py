"""What runs leave behind, by the process's own counters, at a sample of runs.

RSS grows in whichever run touches a new page; the allocators' counters grow with what is really
kept. They are read just before a run and just before the next one, so a read costs nothing inside
a task. What is kept in mind meanwhile is kept in an array, as it would count itself otherwise.

**Garbage is told from growth.** Before each read the young objects are collected. Then all cyclic
garbage of the run before is freed: what a run left in garbage is known, and is neither its leak
nor the gain of the run in which the collector would have come. If a full collection came inside a
run, it freed garbage of others too: that run is left out. Where that happens to all samples of a
task, the next ones lie between two full collections, if those are short enough. Where the user has
disabled or frozen the collector, nothing is collected.

**Caches of the interpreter** are brought to the same level before each read (`level_caches`).
Tuples' free lists are too long for that: what is in them is counted, and taken off (`free_tuples`).

**The messages beside it.** Just before a run its message is in memory, and so is what the pool
keeps of the result of the run before. Among runs of the same task that makes no difference. Where
the run before it or the one after it is of another task, one with a large message seems to keep it,
and one with a long result a hundred bytes. Such samples are marked, and so are the first ones in a
process: for some runs it fills what it keeps for good, a kilobyte or less in each. Children that
live for a few runs do nothing else: all of theirs are marked. What is marked counts where there is
nothing better. So that there is, where runs that follow on one of their own task have been seen, a
few samples are passed over before one is marked: those do not begin, or are not read at their end.

In a process that takes its own messages (``--pool=solo``) several may wait. If they are not as many
at the end of a sample as at its start, it is none.

**Others in the process** disturb a sample (`others_at_work.py`), and it is none.

**Runs that raised.** The pool holds the last result until the next run has ended, and that of a
failed run is hundreds of kilobytes of traceback. So the sample of a run that raised ends after the
next run, if that is one of the same task and does not raise; and no sample begins right after one.

**How often.** A read costs 20 us or, where the heap is not in the processor's caches or has many
free chunks, milliseconds; a collection costs what the young objects cost. So both are measured, and
a task is sampled so seldom that it pays for its samples by `SHARE` of the budget of its own CPU
time. Each task is sampled every `DUE_NS` besides, so that a rare one is sampled at each run, as
long as the process has the budget.

**While the heap grows**, samples may cost more, and so may windows of tracing, which are told how
long it has been growing: the question is then worth it. What may be spent is spent: the more of it
there is, the sooner the next sample comes, up to each run, as a leak in one run of a hundred is in
none of a few samples. A heap grows where its lowest level was
higher than before three times, ten seconds apart, not lower meanwhile, and not the same for a
minute: a buffer that is enlarged by an eighth now and then grows, too.

**Floors.** Now and then a full collection lies between two runs, and the levels right after it are
sent: the only ones that can be compared over hours. No callback of the collector is used: it would
run at each of its collections, a thousand times a second in code that allocates much, for up to
half a per cent of its time.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from tracemalloc import is_tracing

import celery.worker.state
from billiard.pool import SIG_SOFT_TIMEOUT

from otel_celery_memory.ipc.codec import ABSENT
from otel_celery_memory.ipc.commands import NO_BALANCE, Balance
from otel_celery_memory.ipc.records import FloorMeasured, RunRetained
from otel_celery_memory.probes.allocators import (
    SMALL_BLOCK_BYTES,
    HeapReading,
    InUse,
    SharedHeap,
    full_collections,
    is_frozen,
    level_caches,
    malloc_in_use,
    open_files_in_use,
    threads_in_use,
)
from otel_celery_memory.probes.free_tuples import free_tuples
from otel_celery_memory.worker.measuring.others_at_work import OthersAtWork, other_threads_ns
from otel_celery_memory.worker.record_writer import RecordSink

SHARE = 0.3
"""Of the budget: what samples may cost."""
FLOOR_SHARE = 0.1
"""Of the budget: what floors may cost."""
FIRST_NS = 20_000_000
"""What a process may spend before it has earned it, so that its first runs are sampled."""
DUE_NS = 3_000_000_000
"""Each task is sampled so often, if it runs."""
IDLE_SHARE = 0.3
"""A process that hardly works counts as busy for so much of the time: 0.09 % of a core, or a sample
every two seconds."""
GROWING_SHARE = 1.0
"""A process whose heap grows counts as busy for so much of the time besides."""
GROWTH_NS = 10_000_000_000
"""The lowest level of so long is compared with the one before."""
_GROWTH_BYTES = 4 << 10
_GROWTHS = 3
_STILL_MAX = 5
_ALIKE_SHARE = 0.1
_GROWING_FACTOR = 4
"""In a heap that grows, tasks are due so much more often, if the process has the budget."""
_PLENTY_NS = 20_000_000
"""With so much to spend in a heap that grows, the next run is sampled."""
_CREDIT_MAX_NS = 100_000_000
"""What was earned and not spent for long is not spent at once: it would be felt."""
PAUSE_MAX_NS = 50_000_000
"""No run waits longer for a collection, nor for a read."""
FLOOR_NS = 60_000_000_000
"""The least time between two floors."""
NAMES_MAX = 200
_WAIT_MAX = 5_000
_ASK_RUNS = 100
"""A process that has nothing to spend is asked again after so many runs, or when tasks are due."""
_QUIET_NS = 100_000_000
"""After a traced run its thread and its memory are there for a moment."""
_COLLECT_NS_A_BLOCK = 100
"""A full collection takes so long a block, before one was measured: an upper estimate."""
_SAMPLES_AT_ONCE = 4
_SMALL_INTEGER_MAX = 256
"""The interpreter has the integers up to here once."""
_SPOILED_IN_A_ROW = 3
_PASSES_MOST = 9
"""So many samples of a task in a row are passed over, as another task's run is beside them."""
_SHORT_LIFE_RUNS = 100
"""A child that lives for fewer has none to pass over."""
_EARLY_SAMPLES = 4
"""Of each task, in each process."""
_SKIPPED_LEAST, _SKIPPED_MAX = 3, 20
"""First runs of a task in a child that are passed over."""
_SAMPLE_NS = 2_000_000
"""What a sample costs in a new child, about: the pages that it reads are not in the caches."""
_FEW_SAMPLES = 3
_YOUNG, _FULL = 1, 2
_HEAP, _BLOCKS, _FILES, _THREADS = range(4)
_CPU, _COLLECTIONS, _MODULES, _ALLOWED, _BETWEEN_FULL, _MESSAGES, _FOLLOWS_OWN = range(7)
_LOWEST, _BEFORE, _RISES, _STILL, _GROWN_NS = range(5)


def messages_taken() -> int:
    """How many messages this process has taken and not finished; a pool's child takes none."""
    return len(celery.worker.state.requests)


@dataclass
class CounterProbes:
    """The reads; ``malloc`` is ``None`` where its counter cannot be trusted."""

    malloc: InUse | None
    blocks: Callable[[], int] = sys.getallocatedblocks
    open_files: Callable[[], int | None] = open_files_in_use
    threads: Callable[[], int | None] = threads_in_use
    level_caches: Callable[[], object] = level_caches
    free_tuples: Callable[[], int] = field(default_factory=free_tuples)
    messages: Callable[[], int] = messages_taken
    others_ns: Callable[[], int] = other_threads_ns
    own_work: Callable[[], int] = lambda: 0
    """How often something of ours was done in this process beside measuring."""

    def read_into(self, levels: array[int]) -> None:
        """Writes bytes in use, blocks, descriptors and threads; `ABSENT` for what is not known."""
        files, threads = self.open_files(), self.threads()
        levels[_FILES] = ABSENT if files is None else files
        levels[_THREADS] = ABSENT if threads is None else threads
        levels[_HEAP] = ABSENT
        self.level_caches()
        free_tuples = self.free_tuples()
        # Last, as what was read before has been freed by now.
        levels[_BLOCKS] = blocks = self.blocks() - free_tuples
        in_use = None if self.malloc is None else self.malloc()
        if in_use is not None:
            levels[_HEAP] = in_use + blocks * SMALL_BLOCK_BYTES


class Collector:
    """Collections between two runs, never where the user has disabled or frozen the collector."""

    def __init__(self, shared: SharedHeap | None = None) -> None:
        self._shared = shared or SharedHeap()
        self._frozen = False

    def allowed(self) -> bool:
        """Whether there may be a collection of ours."""
        # Counting what is frozen takes time where much is: once is enough.
        self._frozen = self._frozen or is_frozen()
        return gc.isenabled() and not self._frozen

    def may_collect_fully(self) -> bool:
        """Whether all objects may be collected, or are shared with the main process."""
        return not self._shared.is_shared()

    def collect(self, generation: int) -> int:
        """Collects; how many objects were freed. A time limit waits, as a finalizer would eat it.

        A soft time limit is an exception, and the interpreter drops those that a finalizer raises.
        """
        with _soft_limit_waits():
            return gc.collect(generation)

    @staticmethod
    def full_collections() -> int:
        """How many full collections there have been."""
        return full_collections()


@contextlib.contextmanager
def _soft_limit_waits() -> Iterator[None]:
    if SIG_SOFT_TIMEOUT is None or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {SIG_SOFT_TIMEOUT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class RunCounters:
    """Samples the runs of one process. Times are in nanoseconds."""

    def __init__(
        self,
        sink: RecordSink,
        budget: float,
        pause_max_s: float,
        rss_bytes: Callable[[], int],
        probes: CounterProbes | None = None,
        collector: Collector | None = None,
        before: Balance = NO_BALANCE,
        has_grown: Callable[[float], object] = lambda seconds: None,
        has_cost: Callable[[float], object] = lambda seconds: None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        cpu_ns: Callable[[], int] = time.process_time_ns,
        chance: random.Random | None = None,
    ) -> None:
        """``budget``: share of the CPU time; ``pause_max_s``: the longest that a run may wait.

        ``before``: what the process had that was in this slot before, if there was one.
        ``has_grown`` is called with seconds in which the heap has gone on growing, ``has_cost``
        with the CPU seconds of each read.
        """
        self._sink, self._budget = sink, budget
        self._pause_max_ns = min(int(pause_max_s * 1e9), PAUSE_MAX_NS)
        self._rss_bytes = rss_bytes
        self._probes = probes or CounterProbes(malloc_in_use())
        self._others = OthersAtWork(self._probes.others_ns, self._probes.own_work)
        self._collector = collector or Collector()
        self._has_grown, self._has_cost = has_grown, has_cost
        self._clock_ns, self._cpu_ns = clock_ns, cpu_ns
        self._chance = chance or random.Random()  # noqa: S311
        self._pid = os.getpid()
        self.open = ""
        """The task whose run is being sampled; empty for none."""
        self.left: dict[str, int] = {}
        """How many runs of each task pass before the next one is sampled."""
        self.spent_ns = 0
        """What samples have cost, of the process's CPU time; floors have a share of their own."""
        self._forfeited_ns = 0.0
        self._predecessors_runs = int(before.runs)
        self._first_ns = self._credit_ns(before)
        self._began_ns, self._began_cpu_ns = clock_ns(), cpu_ns()
        self.due_ns = self._began_ns + DUE_NS
        """When tasks that were not sampled meanwhile are due."""
        # Arrays, so that what is kept while a run is sampled does not count.
        self._levels = array("q", [0] * 4)
        """Just before the run that is being sampled."""
        self._before = array("q", [0] * 4)
        self._now = array("q", [0] * 4)
        self._marks = array("q", [0] * 7)
        self._heap = array("q", [ABSENT, ABSENT, 0, 0, 0])
        """Its lowest level lately, and before; how often it was higher; how often it has been the
        same since; and how long it has grown."""
        self._samples: Counter[str] = Counter()
        self._samples_before = 0
        """How many there were when the heap was read last."""
        self._sampled_lately: set[str] = set()
        self._spoiled: Counter[str] = Counter()
        """How many samples of a task in a row had a full collection in them."""
        self._is_short_lived = 0 < self._predecessors_runs < _SHORT_LIFE_RUNS
        self._passes_most = 0 if self._is_short_lived else _PASSES_MOST
        self._passes: dict[str, int] = {}
        self._passes_left: dict[str, int] = {}
        """Of tasks that were seen to follow on themselves: how many samples may be passed over
        until the next one."""
        self._after_failed = False
        self._goes_on = False
        """Whether the sampled run raised, and its sample goes on through the run after it."""
        self._run_ns: dict[str, int] = {}
        self._quiet_until_ns = 0
        self._heap_ns = self._floor_ns = self._began_ns
        self._floors_spent_ns = 0
        self._ns_a_block = _COLLECT_NS_A_BLOCK
        self._has_collected_fully = False

    def discard(self) -> None:
        """The run that is being sampled is traced, or its end was missed: it says nothing."""
        self.open = ""
        self._quiet_until_ns = self._clock_ns() + _QUIET_NS

    def raised(self) -> None:
        """The run that has just ended raised: its sample ends after the next one, if at all."""
        if self._goes_on:
            self.open = ""
        self._after_failed = True

    def heap_read(self, heap: HeapReading) -> None:
        """The heap was read at any moment: where no run is sampled, as they overlap, its growth is
        watched by that."""
        samples = sum(self._samples.values())
        if samples == self._samples_before and not is_tracing():
            read = heap.malloc_used_bytes
            known = self._probes.malloc() if read and self._probes.malloc is not None else None
            # Only where both are glibc's: other counters are of a thread, or cannot be trusted.
            if read and known is not None and abs(known - read) <= _ALIKE_SHARE * read:
                self._watch_heap(read + heap.blocks * SMALL_BLOCK_BYTES)
        self._samples_before = samples

    def boundary(self, name: str, previous: str) -> None:
        """A run of this task is about to start, and the one before has ended, of ``previous``."""
        after_failed, self._after_failed = self._after_failed, False
        self._goes_on = after_failed and self.open == name
        if self._goes_on:
            return
        closes, self.open = ("" if after_failed else self.open), ""
        if closes and closes != name and self._passes_over(closes):
            closes = ""
        began_cpu_ns, now_ns = self._cpu_ns(), self._clock_ns()
        if now_ns >= self.due_ns:
            self._make_due(now_ns)
        if now_ns < self._quiet_until_ns:
            return
        opens = (
            not after_failed
            and self._is_due(name, began_cpu_ns, now_ns)
            and (self._follows_own(name, previous) or not self._passes_over(name))
        )
        if not closes and not opens:
            return
        allowed = self._collector.allowed()
        is_reusable = False
        if closes:
            self._others.note()
            is_reusable = self._close(closes, name, began_cpu_ns, allowed=allowed)
            self._wait(closes, 2 * (self._cpu_ns() - began_cpu_ns), began_cpu_ns, now_ns)
            # A larger number is an object of its own: the next run would seem to keep a block.
            is_reusable = is_reusable and self.left[closes] <= _SMALL_INTEGER_MAX
        full = False
        if allowed:
            bracket = opens and self._spoiled[name] >= _SPOILED_IN_A_ROW
            full = self._collect_fully(
                now_ns, floor=self._floor_is_due(began_cpu_ns, now_ns), bracket=bracket
            )
            # The run after a floor puts back what that has thrown out of the interpreter's caches.
            opens = opens and (bracket or not full)
            if opens and not closes and not full:
                self._collector.collect(_YOUNG)
        if opens:
            self._marks[_COLLECTIONS] = self._collector.full_collections()
            self._marks[_MODULES] = len(sys.modules)
            self._marks[_MESSAGES] = self._probes.messages()
            self._marks[_FOLLOWS_OWN] = previous == name
            self._marks[_ALLOWED], self._marks[_BETWEEN_FULL] = allowed, full
            if is_reusable and not full:
                self._levels[:] = self._now
            else:
                # Last, and anew: what we have kept of the run before must not count.
                self._others.note()
                self._probes.read_into(self._levels)
            self._others.begin()
            self.open = name
        self._marks[_CPU] = now_cpu_ns = self._cpu_ns()
        self.spent_ns += now_cpu_ns - began_cpu_ns
        self._has_cost((now_cpu_ns - began_cpu_ns) / 1e9)

    def _credit_ns(self, before: Balance) -> int:
        """What this process may spend before it has earned it.

        Where children live for a few runs, each has a few samples, or few children have any.
        """
        if not self._predecessors_runs:
            return FIRST_NS
        earning_s = before.runs * before.run_s + IDLE_SHARE * before.lived_s
        earns_ns = SHARE * self._budget * earning_s * 1e9
        wanted_ns = _FEW_SAMPLES * _SAMPLE_NS
        if earns_ns > 2 * wanted_ns:
            return wanted_ns
        return wanted_ns if self._chance.random() < earns_ns / wanted_ns else -_SAMPLE_NS

    def _make_due(self, now_ns: int) -> None:
        self.due_ns = now_ns + (DUE_NS // _GROWING_FACTOR if self._grows() else DUE_NS)
        for name in self.left:
            if name not in self._sampled_lately:
                self.left[name] = 0
        self._sampled_lately.clear()

    def _is_due(self, name: str, cpu_ns: int, now_ns: int) -> bool:
        left = self.left.get(name, 0)
        if left:
            self.left[name] = left - 1
            return False
        if name not in self.left:
            if len(self.left) >= NAMES_MAX - 1:  # one may be open
                return False
            if self._predecessors_runs:
                # What the first runs do is done again in each child.
                most = min(self._predecessors_runs // 2, _SKIPPED_MAX)
                self.left[name] = self._chance.randint(min(_SKIPPED_LEAST, most), most)
                return False
        left_ns = self._credit_left_ns(cpu_ns, now_ns)
        if left_ns > 0:
            return True
        # To ask at each run would cost more than what is asked for.
        self.left[name] = min(self._runs_for(name, -left_ns), _ASK_RUNS)
        return False

    def _follows_own(self, name: str, previous: str) -> bool:
        if previous != name:
            return False
        if name not in self._passes:
            self._passes_left[name] = self._passes[name] = self._passes_most
        return True

    def _passes_over(self, name: str) -> bool:
        """Whether a sample of this task that would be marked is none."""
        left = self._passes_left.get(name, 0)
        if not left or name not in self.left:
            return False
        self._passes_left[name] = left - 1
        return True

    def _runs_for(self, name: str, cost_ns: float) -> int:
        """How many runs of this task earn so much."""
        earned_ns = SHARE * self._budget * self._run_ns.get(name, 0)
        return min(int(cost_ns / max(earned_ns, 1.0)), _WAIT_MAX)

    def _credit_left_ns(self, cpu_ns: int, now_ns: int) -> float:
        left_ns = self._first_ns + self._earned_ns(cpu_ns, now_ns) * SHARE - self.spent_ns
        self._forfeited_ns = max(self._forfeited_ns, left_ns - _CREDIT_MAX_NS)
        return left_ns - self._forfeited_ns

    def _grows(self) -> bool:
        return self._heap[_RISES] >= _GROWTHS

    def _earned_ns(self, cpu_ns: int, now_ns: int) -> float:
        idle_ns = IDLE_SHARE * (now_ns - self._began_ns) + GROWING_SHARE * self._heap[_GROWN_NS]
        return self._budget * (cpu_ns - self._began_cpu_ns + idle_ns)

    def _close(self, name: str, following: str, cpu_ns: int, *, allowed: bool) -> bool:
        """The sampled run has ended, and one of the task ``following`` is about to start.

        Returns whether the levels that were read are those from which that starts, too.
        """
        between_full = bool(self._marks[_BETWEEN_FULL])
        collections = self._collector.full_collections()
        self._probes.read_into(self._before)
        if allowed:
            self._collector.collect(_FULL if between_full else _YOUNG)
        self._probes.read_into(self._now)
        is_disturbed = self._others.were_at_work()
        run_ns = max(cpu_ns - self._marks[_CPU], 1)
        before_ns = self._run_ns.get(name, run_ns)
        self._run_ns[name] = before_ns + (run_ns - before_ns) // 4
        warm_up = name not in self.left or len(sys.modules) > self._marks[_MODULES]
        if allowed != self._marks[_ALLOWED] or self._probes.messages() != self._marks[_MESSAGES]:
            return False
        if collections != self._marks[_COLLECTIONS] and not between_full:
            self._spoiled[name] += 1  # it freed garbage of others too
            return False
        if not between_full:
            self._spoiled.pop(name, None)
        if self._others.spoils(name, disturbed=is_disturbed):
            return False
        self._watch_heap(self._now[_HEAP])
        garbage = _difference(self._before, self._now, _HEAP) if allowed else None
        alike = following == name and bool(self._marks[_FOLLOWS_OWN])
        is_early = self._is_short_lived or self._samples[name] < _EARLY_SAMPLES
        if name in self._passes:
            # As many again where that was worth it; else fewer.
            most = self._passes[name]
            most = self._passes_most if alike else most // 2
            self._passes_left[name] = self._passes[name] = most
        # What is kept in mind of a task is new only at its first samples.
        is_reusable = self._samples[name] > _SAMPLES_AT_ONCE
        self._samples[name] += 1
        self._sampled_lately.add(name)
        self._sink.send(
            RunRetained(
                self._pid,
                time.time_ns(),
                int(warm_up),
                int(alike and not is_early and not is_disturbed),
                _difference(self._now, self._levels, _HEAP),
                self._now[_BLOCKS] - self._levels[_BLOCKS],
                _difference(self._now, self._levels, _FILES),
                _difference(self._now, self._levels, _THREADS),
                garbage,
                _known(self._now[_HEAP]),
                name,
            )
        )
        return is_reusable

    def _watch_heap(self, level: int) -> None:
        """Notes whether the heap goes on growing: from its lowest level to the next one."""
        now_ns = self._clock_ns()
        lowest, before, times, _, _ = self._heap
        if ABSENT not in (level, lowest):
            lowest = min(level, lowest)
        elif lowest == ABSENT:
            lowest = level
        passed_ns = now_ns - self._heap_ns
        if passed_ns < GROWTH_NS:
            self._heap[_LOWEST] = lowest
            return
        self._heap_ns, self._heap[_LOWEST] = now_ns, ABSENT
        if ABSENT in (lowest, before):
            self._heap[_BEFORE] = lowest
            return
        if lowest > before + _GROWTH_BYTES:
            times, self._heap[_STILL] = times + 1, 0
        elif lowest < before - _GROWTH_BYTES or self._heap[_STILL] == _STILL_MAX:
            times = self._heap[_STILL] = 0
        else:
            self._heap[_STILL] += 1
            lowest = before
        self._heap[_RISES], self._heap[_BEFORE] = times, lowest
        if self._grows():
            passed_ns = min(passed_ns, 2 * GROWTH_NS)
            self._heap[_GROWN_NS] += passed_ns
            self._has_grown(passed_ns / 1e9)

    def _wait(self, name: str, cost_ns: int, cpu_ns: int, now_ns: int) -> None:
        """How many runs of this task pass until it has earned its next sample, at random."""
        if self._samples[name] < _SAMPLES_AT_ONCE:
            self.left[name] = 0
            return
        runs = self._runs_for(name, cost_ns)
        if self._grows():
            left = self._credit_left_ns(cpu_ns, now_ns) / _PLENTY_NS
            runs = int(runs * (1 - min(max(left, 0.0), 1.0)))
        self.left[name] = self._chance.randint(runs // 2, runs + runs // 2)

    def _collect_fully(self, now_ns: int, *, floor: bool, bracket: bool) -> bool:
        """Collects all garbage, if there is a reason to; whether it was done."""
        if not (floor or bracket) or not self._pause_fits():
            return False
        if not self._collector.may_collect_fully():
            return False
        self._probes.read_into(self._before)
        began_ns, began_cpu_ns = self._clock_ns(), self._cpu_ns()
        collected = self._collector.collect(_FULL)
        pause_ns = self._clock_ns() - began_ns
        cost_ns = self._cpu_ns() - began_cpu_ns
        self._probes.read_into(self._now)
        # The first one in a child also copies what it shares with the main process, and takes three
        # times as long as the next ones. On a busy machine the process may have waited meanwhile:
        # that would be so without us.
        if self._has_collected_fully:
            self._ns_a_block = max(min(pause_ns, cost_ns) // max(self._now[_BLOCKS], 1), 1)
        self._has_collected_fully = True
        if not floor:
            return True
        self._floor_ns = now_ns
        # Not of the samples' share: they would have to wait for minutes after each floor.
        self._floors_spent_ns += cost_ns
        self.spent_ns -= cost_ns
        self._sink.send(
            FloorMeasured(
                self._pid,
                time.time_ns(),
                sum(self._samples.values()),
                self._rss_bytes(),
                _known(self._now[_HEAP]),
                self._now[_BLOCKS],
                _known(self._now[_FILES]),
                _known(self._now[_THREADS]),
                collected,
                _difference(self._before, self._now, _HEAP),
                pause_ns,
            )
        )
        return True

    def _pause_ns(self) -> int:
        return self._probes.blocks() * self._ns_a_block

    def _pause_fits(self) -> bool:
        return self._pause_ns() <= self._pause_max_ns

    def _floor_is_due(self, cpu_ns: int, now_ns: int) -> bool:
        if now_ns - self._floor_ns < FLOOR_NS:
            return False
        earned_ns = FLOOR_SHARE * self._earned_ns(cpu_ns, now_ns)
        return self._floors_spent_ns + self._pause_ns() <= earned_ns


def _known(level: int) -> int | None:
    return None if level == ABSENT else level


def _difference(after: array[int], before: array[int], which: int) -> int | None:
    if ABSENT in (after[which], before[which]):
        return None
    return after[which] - before[which]
