"""Whether others of the process were at work while a run was sampled."""

from __future__ import annotations

import hashlib
import threading

from otel_celery_memory.worker.measuring.others_at_work import OthersAtWork, other_threads_ns


class Process:
    """What others have done in it."""

    def __init__(self) -> None:
        self.computed_ns = self.works = 0
        self.others = OthersAtWork(lambda: self.computed_ns, lambda: self.works)

    def sample(self, computed_ns: int = 0, works: int = 0) -> bool:
        """Whether a sample is disturbed in which so much was done."""
        self.others.note()
        self.others.begin()
        self.computed_ns += computed_ns
        self.works += works
        return self.others.were_at_work()


def test_an_export_and_what_is_concluded_in_process_disturb_and_a_wakeup_does_not() -> None:
    process = Process()
    found = [process.sample(), process.sample(50_000), process.sample(2_000_000)]
    assert [*found, process.sample(works=1), process.sample()] == [False, False, True, True, False]


def test_what_comes_while_levels_are_read_disturbs_the_sample_that_begins_with_them() -> None:
    process = Process()
    process.others.note()
    process.computed_ns += 2_000_000
    process.others.begin()
    assert process.others.were_at_work()


def test_disturbed_samples_are_none_unless_there_are_hardly_any_others() -> None:
    others = Process().others
    assert [others.spoils("a", disturbed=True) for _ in range(10)] == [True] * 8 + [False] * 2
    assert not others.spoils("a", disturbed=False)
    assert [others.spoils("a", disturbed=True) for _ in range(22)] == [True] * 20 + [False] * 2
    assert others.spoils("b", disturbed=True)


def test_the_time_of_other_threads_is_theirs_alone() -> None:
    def compute() -> None:
        for _ in range(20):
            hashlib.sha256(bytes(1 << 20)).digest()

    before_ns = other_threads_ns()
    compute()
    alone_ns = other_threads_ns() - before_ns
    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    assert other_threads_ns() - before_ns - alone_ns > 2_000_000 > alone_ns
