"""Tasks that take signals and timers for their own."""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.hostile.scenarios import EVERY_POOL, PREFORK, hostile

_UNCATCHABLE = {signal.SIGKILL, signal.SIGSTOP}


def _work(seconds: float) -> None:
    """Allocates for some time, as what is traced does."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        [{"number": number} for number in range(100)]


@hostile(spoils=True)
def replaces_all_handlers(here: str) -> dict[str, int]:
    """Nobody sends it a signal."""
    heard: Counter[str] = Counter()

    def hear(number: int, frame: object) -> None:
        heard[signal.Signals(number).name] += 1

    for number in signal.valid_signals() - _UNCATCHABLE:
        signal.signal(number, hear)
    _work(0.2)
    return dict(heard)


@hostile(spoils=True)
def blocks_all_signals(here: str) -> list[list[str]]:
    """None was blocked before, and none is waiting."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    _work(0.1)
    return [sorted(map(str, before)), sorted(map(str, signal.sigpending()))]


@hostile(pools=EVERY_POOL)
def looks_at_handlers(here: str) -> list[str]:
    """Who has which. SIGURG is ours, as the documentation says: it does nothing by default."""
    found = []
    for number in sorted(signal.valid_signals() - {signal.SIGURG}):
        handler = signal.getsignal(number)
        found.append(f"{int(number)} {getattr(handler, '__qualname__', handler)}")
    return found


@hostile(pools=("prefork", "solo"))
def sets_every_timer(here: str) -> list[object]:
    """None of them is in use, and each strikes once."""
    struck: list[str] = []
    seen: list[object] = []
    for which, number in (
        (signal.ITIMER_REAL, signal.SIGALRM),
        (signal.ITIMER_VIRTUAL, signal.SIGVTALRM),
        (signal.ITIMER_PROF, signal.SIGPROF),
    ):
        former = signal.signal(number, lambda n, _: struck.append(signal.Signals(n).name))
        seen.append(signal.setitimer(which, 0.02))
        count = len(struck)
        while len(struck) == count:
            _work(0.01)
        seen.append(signal.getitimer(which)[1])
        signal.signal(number, former)
    return [*seen, *struck]


@hostile(pools=("prefork", "solo"))
def is_woken_by_an_alarm(here: str) -> str:
    """A sleep that a handler ends by raising."""

    def ring(*_: object) -> None:
        raise InterruptedError

    former = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        signal.pause()
    except InterruptedError:
        return "woken"
    finally:
        signal.signal(signal.SIGALRM, former)
    return "not woken"


@hostile(pools=("prefork", "solo"))
def raises_from_a_timer_now_and_then(here: str) -> int:
    """Every 5 ms a handler raises; whatever runs then, the task alone hears of it."""

    class RingError(Exception):
        pass

    def ring(*_: object) -> None:
        raise RingError

    caught = 0
    former = signal.signal(signal.SIGALRM, ring)
    try:
        while caught < 20:
            with suppress(RingError):
                signal.setitimer(signal.ITIMER_REAL, 0.005)
                _work(5)
                return -1
            caught += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    return caught


@hostile(pools=("prefork", "solo"))
def wakes_by_a_descriptor(here: str) -> list[object]:
    """`set_wakeup_fd` has no other user in a child, and hears of what was sent alone."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    former = signal.set_wakeup_fd(writer)
    handler = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        os.kill(os.getpid(), signal.SIGUSR2)
        select.select([reader], [], [], 10)
        _work(0.05)
        heard = [signal.Signals(number).name for number in os.read(reader, 100)]
    finally:
        signal.signal(signal.SIGUSR2, handler)
        signal.set_wakeup_fd(former)
        os.close(reader)
        os.close(writer)
    return [former < 0, *heard]


@hostile(pools=PREFORK)
def waits_for_a_signal_of_its_own(here: str) -> str:
    """With the signal blocked, `sigwait` takes it."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGURG})
    try:
        os.kill(os.getpid(), signal.SIGURG)
        return signal.Signals(signal.sigwait({signal.SIGUSR2, signal.SIGURG})).name
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


@hostile()
def has_its_traceback_dumped_later(here: str) -> int:
    """faulthandler's own thread writes of each thread that Python knows."""
    path = Path(here, "dump")
    with path.open("w") as file:
        faulthandler.dump_traceback_later(0.1, file=file)
        until_s = time.monotonic() + 20
        while not path.stat().st_size and time.monotonic() < until_s:
            _work(0.1)  # its thread may wait for a core
        faulthandler.cancel_dump_traceback_later()
    threads = path.read_text().count("most recent call first")
    path.unlink()
    return threads


@hostile()
def dumps_tracebacks_of_all_threads(here: str) -> int:
    """Threads that Python knows."""
    path = Path(here, "dump")
    with path.open("w") as file:
        faulthandler.dump_traceback(file, all_threads=True)
    threads = path.read_text().count("most recent call first")
    path.unlink()
    return threads


@hostile()
def profiles_threads_that_start(here: str) -> list[object]:
    """Only the thread that the task starts."""
    calls: Counter[str] = Counter()

    def profile(frame: object, event: str, _: object) -> None:
        # The thread has no name yet where it begins: it is the dummy of some number.
        calls[threading.current_thread().name.rstrip("0123456789")] += 1

    threading.setprofile(profile)
    try:
        thread = threading.Thread(target=_work, args=(0.05,), name="mine")
        thread.start()
        thread.join()
        _work(0.05)
    finally:
        threading.setprofile(None)
    return [sorted(calls), sorted(each.name for each in threading.enumerate() if each.name != "x")]
