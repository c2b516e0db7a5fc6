"""Allocations are traced beside threads that enter no interpreter; beside others that is said."""

from __future__ import annotations

from pathlib import Path

from demo.receiver import Receiver
from otel_celery_memory.probes.tracemalloc_session import stop_is_fixed
from tests.native_library import compiled
from tests.processes import wait_until
from tests.worker.harness import CONTROLLED, Start


def said_of_threads(log: str) -> list[str]:
    """The lines on the crash, but for the one at the start, which says that there may be one."""
    lines = (line for line in log.splitlines() if "measures the tasks of this worker" not in line)
    return [line for line in lines if "gh-128679" in line]


def test_a_process_with_numpy_is_traced_within_the_budget_and_nothing_is_said_of_it(
    start: Start, receiver: Receiver
) -> None:
    environ = {"OPENBLAS_NUM_THREADS": "4", "OTEL_CELERY_MEMORY_OVERHEAD_BUDGET": "0.5"}
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        assert worker.run("multiply", 500) >= 2
        # On CPython 3.11 too, where gh-128679 is not fixed.
        wait_until("a run is traced", lambda: worker.run("is_traced"), 60)
        assert worker.run("multiply", 500) >= 2
        worker.stop()
    assert said_of_threads(worker.log()) == []
    assert receiver.received.latest("celery.memory.parts.switched_off") == []


def test_beside_a_thread_of_an_unknown_library_the_log_and_inspect_memory_say_what_is_not_traced(
    start: Start, tmp_path: Path
) -> None:
    environ = {**CONTROLLED, "OTEL_CELERY_MEMORY_OVERHEAD_BUDGET": "0.5"}
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        worker.run("start_thread_of", compiled(tmp_path, "libother.so"))

        def said() -> object:
            return worker.run("is_traced") or said_of_threads(worker.log())

        wait_until("it is traced, or said why not", said, 60)
        if stop_is_fixed():
            assert said_of_threads(worker.log()) == []
        else:
            assert worker.log().count("(libother.so)") == 1

            def shown() -> object:
                view = worker.command("memory").get("memory") or {}
                return [each["part"] for each in view.get("switched_off", [])]

            parts = wait_until("inspect memory says it", shown, 60)
            assert parts == ["tracing_beside_native_threads"]
            assert not any(worker.run("is_traced") for _ in range(50))
        worker.stop()
