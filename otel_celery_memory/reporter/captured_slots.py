"""The places in the pool that a capture waits for, and what each has sent of it. Pure.

Places and not processes: a child may live for less runs than a capture is of, and the one that
comes after it goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from otel_celery_memory.captures.model import CapturedProcess
from otel_celery_memory.ipc.records import MAIN_SLOT, slot_name

EMPTY_S = 10.0
"""A place that has no process for so long is no more waited for: the pool has shrunk."""
_MAIN = slot_name(MAIN_SLOT)


class CapturedSlots:
    """Of one capture; ``now_s`` is monotonic."""

    def __init__(self) -> None:
        self._windows: Counter[str] = Counter()
        self._senders: dict[str, CapturedProcess] = {}
        self._seen_s: dict[str, float] = {}

    def sent(self, sender: CapturedProcess, now_s: float) -> None:
        """A process has sent a window."""
        self._windows[sender.slot] += 1
        self._senders[sender.slot] = sender
        self._seen_s[sender.slot] = now_s

    def see(self, there: Iterable[CapturedProcess], now_s: float) -> None:
        """These processes run tasks now."""
        for process in there:
            self._seen_s[process.slot] = now_s
            sender = self._senders.get(process.slot)
            if sender is not None and sender.pid == process.pid:
                self._senders[process.slot] = process  # its RSS is newer

    def lack(self, wanted: int, now_s: float) -> bool:
        """Whether a place has yet to send some of the `wanted` windows; so while none is known."""
        # Where there is a pool the main process runs no tasks, though it alone may be there now.
        places = self._seen_s.keys() - {_MAIN} or self._seen_s.keys()
        waited_for = [slot for slot in places if now_s - self._seen_s[slot] <= EMPTY_S]
        return not waited_for or any(self._windows[slot] < wanted for slot in waited_for)

    def senders(self) -> tuple[CapturedProcess, ...]:
        """Of each place that has sent any, the process that did last."""
        slots = sorted(self._senders, key=lambda slot: (len(slot), slot))
        return tuple(self._senders[slot] for slot in slots)
