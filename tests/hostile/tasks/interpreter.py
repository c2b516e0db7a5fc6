"""Tasks that hook into the interpreter, and leave the hooks there."""

from __future__ import annotations

import asyncio
import builtins
import contextvars
import faulthandler
import gc
import importlib
import logging
import os
import random
import sys
import threading
import time
import tracemalloc
import warnings
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

from tests.hostile.scenarios import EVERY_POOL, hostile

_HERE = Path(__file__).name


def _rows() -> int:
    return len([{"number": number, "text": str(number)} for number in range(300)])


@hostile(pools=EVERY_POOL)
def looks_at_the_interpreter(here: str) -> dict[str, object]:
    """All that can be asked for is as without us."""
    return {
        "trace": repr(sys.gettrace()),
        "profile": repr(sys.getprofile()),
        "excepthook": sys.excepthook is sys.__excepthook__,
        "unraisablehook": sys.unraisablehook is sys.__unraisablehook__,
        "displayhook": sys.displayhook is sys.__displayhook__,
        "threading.excepthook": threading.excepthook.__name__,
        "switch interval": sys.getswitchinterval(),
        "recursion limit": sys.getrecursionlimit(),
        "gc": [gc.isenabled(), gc.get_threshold(), gc.get_debug(), gc.get_freeze_count()],
        "gc callbacks": [repr(each) for each in gc.callbacks],
        "garbage": len(gc.garbage),
        "faulthandler": faulthandler.is_enabled(),
        "filters": [str(each) for each in warnings.filters],
        "disabled logging": logging.root.manager.disable,
        "root handlers": [type(each).__name__ for each in logging.root.handlers],
        "logger class": logging.getLoggerClass().__name__,
        "path hooks": len(sys.path_hooks),
        "meta path": len(sys.meta_path),
        "path": len(sys.path),
        "async hooks": str(sys.get_asyncgen_hooks()),
        "umask": [os.umask(0o022), os.umask(0o022)],
        "directory": str(Path.cwd() == Path(os.environ["TEST_MARKERS"])),
        "threads": sorted(each.name for each in threading.enumerate()),
    }


@hostile(undo=lambda: sys.settrace(None))
def traces_every_line(here: str) -> list[str]:
    """In whose files it was: in the task's alone."""
    files: Counter[str] = Counter()

    def trace(frame: Any, event: str, argument: object) -> Any:
        files[Path(frame.f_code.co_filename).name] += 1
        return trace

    sys.settrace(trace)
    _rows()
    return sorted(files)


@hostile(undo=lambda: sys.setprofile(None))
def profiles_every_call(here: str) -> list[list[object]]:
    """How many calls of which function."""
    calls: Counter[str] = Counter()

    def profile(frame: Any, event: str, argument: object) -> None:
        calls[f"{event} {frame.f_code.co_name}"] += 1

    sys.setprofile(profile)
    _rows()
    seen: list[list[object]] = [[name, count] for name, count in sorted(calls.items())]
    return seen


@hostile(undo=lambda: sys.settrace(None))
def leaves_a_trace_that_raises(here: str) -> int:
    """Whoever is called next is told off; CPython then ends the tracing."""

    def trace(frame: Any, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != __file__:
            raise RuntimeError("not in my process")
        return trace

    sys.settrace(trace)
    return _rows()


@hostile(spoils=True)
def replaces_hooks_by_ones_that_raise(here: str) -> int:
    """None of them is for us."""

    def refuse(*_: object) -> None:
        raise RuntimeError("not in my process")

    sys.excepthook = sys.displayhook = sys.unraisablehook = refuse
    threading.excepthook = refuse
    return _rows()


@hostile(spoils=True)
def counts_audit_events(here: str) -> list[list[object]]:
    """While the task runs, those are its own; the hook stays for good."""
    events: Counter[str] = Counter()
    listening = True

    def listen(event: str, _: object) -> None:
        if listening:
            events[event] += 1

    sys.addaudithook(listen)
    Path(here, "file").write_text("mine")
    compile("1", "mine", "eval")
    seen: list[list[object]] = [[name, count] for name, count in sorted(events.items())]
    listening = False
    return seen


@hostile(spoils=True)
def refuses_by_an_audit_hook(here: str) -> str:
    """Nothing of /proc is opened in this process any more, no thread started, nothing imported."""

    def refuse(event: str, arguments: Any) -> None:
        if event == "open" and str(arguments[0]).startswith("/proc"):
            raise RuntimeError("no looking around")
        if event in {"_thread.start_new_thread", "import"}:
            raise RuntimeError(event)

    sys.addaudithook(refuse)
    try:
        Path("/proc/self/statm").read_text()
    except RuntimeError:
        return "refused"
    return "read"


if sys.version_info >= (3, 12):

    def _free_tool() -> None:
        sys.monitoring.set_events(sys.monitoring.PROFILER_ID, 0)
        sys.monitoring.free_tool_id(sys.monitoring.PROFILER_ID)

    @hostile(undo=_free_tool, runs=1)
    def monitors_calls(here: str) -> list[list[object]]:
        """`sys.monitoring` has no other user, and hears of the task's functions alone."""
        calls: Counter[str] = Counter()
        monitoring = sys.monitoring
        monitoring.use_tool_id(monitoring.PROFILER_ID, "mine")
        monitoring.register_callback(
            monitoring.PROFILER_ID,
            monitoring.events.PY_START,
            lambda code, _: calls.update((code.co_name,)),
        )
        monitoring.set_events(monitoring.PROFILER_ID, monitoring.events.PY_START)
        _rows()
        seen: list[list[object]] = [[name, count] for name, count in sorted(calls.items())]
        return seen


def _collect_again() -> None:
    gc.callbacks.clear()
    gc.set_debug(0)
    gc.unfreeze()
    gc.enable()
    gc.set_threshold(700, 10, 10)
    gc.garbage.clear()


@hostile(undo=_collect_again)
def takes_garbage_collection_over(here: str) -> list[object]:
    """Off, frozen, told of, and every collection its own."""
    gc.disable()
    before = [gc.isenabled(), gc.get_debug()]
    gc.freeze()
    heard: list[str] = []

    def hear(phase: str, _: object) -> None:
        heard.append(phase)

    gc.callbacks.append(hear)
    _rows()
    gc.collect()
    seen = [*before, *heard]
    gc.callbacks.remove(hear)
    return seen


@hostile(undo=_collect_again)
def leaves_a_collector_that_keeps_all(here: str) -> int:
    """DEBUG_SAVEALL keeps what would be freed, at every allocation."""
    gc.set_threshold(1, 1, 1)
    gc.set_debug(gc.DEBUG_SAVEALL)
    return _rows()


@hostile(undo=_collect_again)
def leaves_a_gc_callback_that_raises(here: str) -> int:
    """It is called inside whatever allocates."""

    def refuse(phase: str, _: object) -> None:
        raise RuntimeError("not now")

    gc.callbacks.append(refuse)
    gc.set_threshold(50, 2, 2)
    return _rows()


@hostile(undo=lambda: sys.setswitchinterval(0.005))
def switches_threads_all_the_time(here: str) -> float:
    """Or hardly ever."""
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=_rows)
    thread.start()
    thread.join()
    seen = sys.getswitchinterval()
    sys.setswitchinterval(3.0)
    return seen


@hostile(pools=EVERY_POOL)
def draws_random_numbers(here: str) -> list[float]:
    """Nobody draws from the generator that it has seeded, until it runs again."""
    drawn = [random.random() for _ in range(3)] if os.environ.get("HOSTILE_SEEDED") else []
    os.environ["HOSTILE_SEEDED"] = "yes"
    random.seed(7)
    return drawn


_SHARED: contextvars.ContextVar[int] = contextvars.ContextVar("_SHARED", default=0)


@hostile()
def sets_a_context_variable(here: str) -> int:
    """Whether the next run sees it is Celery's business."""
    found = _SHARED.get()
    _SHARED.set(found + 1)
    return found


class _Kept:
    """Something whose end can be seen."""


_SEEN: list[Any] = []


@hostile()
def looks_for_what_it_made_before(here: str) -> list[bool]:
    """Nothing that a run made is alive when the next one starts."""
    alive = [each() is not None for each in _SEEN]
    _SEEN.clear()
    made = _Kept()
    _SEEN.append(weakref.ref(made))
    return alive


@hostile()
def returns_what_says_when_it_ends(here: str) -> int:
    """A local's finalizer runs when the task is over, and once."""

    class Ending:
        def __del__(self) -> None:
            with Path(here, "ended").open("a") as file:
                file.write("ended\n")

    ending = Ending()
    return 0 if ending else 1


@hostile()
def leaves_a_finalizer_that_raises(here: str) -> int:
    """In a cycle, so that whoever collects runs it."""

    class Ending:
        def __init__(self) -> None:
            self.myself = self

        def __del__(self) -> None:
            raise RuntimeError("not without me")

    for _ in range(10):
        Ending()
    return _rows()


@hostile(spoils=True)
def replaces_clocks_and_ids(here: str) -> list[object]:
    """As libraries for tests do, and forget to put them back."""
    time.time = lambda: 0.0
    time.time_ns = lambda: 0
    time.monotonic = lambda: 5.0
    time.perf_counter = lambda: 5.0
    time.process_time = lambda: 5.0
    return [time.time(), time.monotonic()]


@hostile(spoils=True)
def replaces_builtins(here: str) -> int:
    """`open`, `print` and `len` are its own from then on."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("not in my process")

    builtins.open = refuse  # type: ignore[assignment]
    builtins.print = refuse
    threading.Thread.start = refuse  # type: ignore[method-assign]
    return _rows()


@hostile(spoils=True)
def forgets_modules(here: str) -> int:
    """All that the worker can do without for a while."""
    for name in list(sys.modules):
        if name.partition(".")[0] in {"opentelemetry", "otel_celery_memory", "psutil"}:
            del sys.modules[name]
    sys.path.clear()
    return _rows()


@hostile(undo=lambda: logging.disable(logging.NOTSET))
def silences_logging(here: str) -> int:
    """Nothing is told by a log any more."""
    logging.disable(logging.CRITICAL)
    return _rows()


@hostile(pools=("prefork", "solo", "threads"))
def runs_an_event_loop(here: str) -> list[int]:
    """One of its own, with threads and a program."""

    async def work() -> list[int]:
        process = await asyncio.create_subprocess_exec("true")
        threads = await asyncio.gather(*(asyncio.to_thread(_rows) for _ in range(3)))
        return [await process.wait(), *threads]

    return asyncio.run(work())


@hostile()
def runs_and_leaves_threads(here: str) -> list[str]:
    """Those that it starts, and no other."""
    event = threading.Event()
    threads = [threading.Thread(target=event.wait, name=f"mine-{n}") for n in range(5)]
    for thread in threads:
        thread.start()
    names = sorted(each.name for each in threading.enumerate() if each.name.startswith("mine"))
    count = threading.active_count()
    event.set()
    for thread in threads:
        thread.join()
    return [*names, str(count)]


@hostile()
def counts_its_own_blocks(here: str) -> bool:
    """`sys.getallocatedblocks` moves by what the task allocates, not by what we do meanwhile."""
    before = sys.getallocatedblocks()
    kept = [object() for _ in range(1000)]
    grown = sys.getallocatedblocks() - before
    return 900 < grown < 1100 and len(kept) == 1000


@hostile()
def formats_a_traceback(here: str) -> list[str]:
    """The functions below the task are Celery's."""
    names, frame = [], sys._getframe()
    while frame.f_back is not None:
        names.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}")
        frame = frame.f_back
    return names


@hostile()
def asks_whether_it_is_traced(here: str) -> list[object]:
    """`tracemalloc` is off, and knows of nothing."""
    return [
        tracemalloc.is_tracing(),
        tracemalloc.get_traced_memory(),
        tracemalloc.get_traceback_limit(),
    ]


@hostile()
def runs_a_subinterpreter(here: str) -> list[str]:
    """It is the only one beside the main one, and has the heap and the collector that it makes."""
    interpreters: Any = importlib.import_module(
        "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    )
    number = interpreters.create()
    try:
        found = Path(here, "found")
        interpreters.run_string(
            number,
            "import gc, sys\n"
            "rows = [{'number': number} for number in range(300)]\n"
            "gc.collect()\n"
            "seen = [gc.isenabled(), gc.callbacks, sys.gettrace(), 'celery' in sys.modules]\n"
            f"open({str(found)!r}, 'w').write(repr(seen))\n",
        )
        return [found.read_text(), str(len(interpreters.list_all()))]
    finally:
        interpreters.destroy(number)
