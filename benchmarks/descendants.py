"""What looking for descendants costs, with 2,000 processes on the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from otel_celery_memory.ipc.records import ProcessUp
from otel_celery_memory.reporter import descendants
from otel_celery_memory.reporter.descendants import LOOK_S, Descendants
from otel_celery_memory.reporter.state.worker_state import WorkerState

OTHERS = 2_000
CHILDREN = 8
OF_EACH = 4
LOOKS_FOR_S = 30.0


@dataclass
class _Emitter:
    state: WorkerState = field(default_factory=WorkerState)

    def emit_tree_peak(self, *_: Any) -> None: ...

    def emit_descendants_left(self, *_: Any) -> None: ...


def main() -> None:
    """Prints the figures."""
    others = _tree(f"for i in $(seq {OTHERS}); do sleep 600 & done; wait")
    few = " & ".join(["sleep 600"] * OF_EACH)
    children = [_tree(f"{few} & wait") for _ in range(CHILDREN)]
    try:
        time.sleep(5)
        for of_kernel in (True, False):
            _print_cost(others.pid, [child.pid for child in children], of_kernel)
    finally:
        for tree in (others, *children):
            os.killpg(tree.pid, signal.SIGKILL)
            tree.wait()


def _tree(script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True)


def _print_cost(main_pid: int, children: list[int], of_kernel: bool) -> None:
    """As the reporter looks: once a second, where a look is due."""
    emitter = _Emitter()
    for slot, pid in enumerate(children):
        emitter.state.apply(ProcessUp(pid, 0, slot, 1))
    looker = Descendants(emitter, main_pid)
    began_s, used_s, longest_s = time.monotonic(), time.thread_time(), 0.0
    with patch.object(descendants, "lists_children", lambda _: of_kernel):
        while time.monotonic() - began_s < LOOKS_FOR_S:
            before_s = time.thread_time()
            looker.look()
            longest_s = max(longest_s, time.thread_time() - before_s)
            time.sleep(LOOK_S)
    share = (time.thread_time() - used_s) / (time.monotonic() - began_s)
    found = sum(size.processes for size in looker.sizes)
    how = "the kernel lists children" if of_kernel else "all processes are read"
    print(f"Descendants of {CHILDREN} processes among {OTHERS:,} others, {how}: {found} found")
    print(f"  CPU                        {share * 100:6.2f} % of one core (bound 1)")
    print(f"  longest look               {longest_s * 1e3:6.1f} ms")


if __name__ == "__main__":
    main()
